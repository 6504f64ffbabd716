/** New runs of a test's processes choose by the built-in table, so that none measures the machine first. */
process.env.LTH_TUNING ||= 'builtin';
