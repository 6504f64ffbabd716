import type { z } from 'zod';
import { didYouMean } from './nearest.js';

type Issue = z.core.$ZodIssue;
/** Keys that are allowed at a place where this value is. */
type KnownAt = (path: PropertyKey[], value: unknown) => string[];

function valueAt(root: unknown, path: PropertyKey[]): unknown {
  return path.reduce((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], root);
}

/** A key that is missing is often one that is mistyped. */
function mostTelling(issues: Issue[]): Issue | undefined {
  return issues.find((one) => one.code === 'unrecognized_keys') ?? issues[0];
}

/** One sentence for people: the place, what was expected, what was received; for an unknown key the nearest known one. */
function describe(issue: Issue, root: unknown, knownAt: KnownAt): string {
  const place = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    const key = issue.keys[0] ?? '';
    const known = knownAt(issue.path, valueAt(root, issue.path));
    const hint = didYouMean(key, known);
    const list = hint || known.length === 0 ? '' : ` Known: ${known.join(', ')}.`;
    return `unknown key "${place ? `${place}.` : ''}${key}".${hint}${list}`;
  }
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    // The branch that got furthest says most.
    const branches = issue.errors.filter((errors) => errors.length > 0).sort((a, b) => a.length - b.length);
    const furthest = branches.sort((a, b) => (b[0]?.path.length ?? 0) - (a[0]?.path.length ?? 0))[0] ?? [];
    const deepest = mostTelling(furthest);
    if (deepest)
      return describe({ ...deepest, path: [...issue.path, ...deepest.path] } as Issue, root, knownAt);
  }
  const value = valueAt(root, issue.path);
  const received =
    value === undefined
      ? 'nothing'
      : `${typeof value === 'string' ? `"${value}"` : JSON.stringify(value)} of type ${Array.isArray(value) ? 'array' : typeof value}`;
  const expected = issue.message.replace(/^Invalid input: /, '').replace(/, received .*$/, '');
  return `${place || 'the whole'}: ${expected}, but received ${received.slice(0, 200)}`;
}

/** The first thing that is wrong, in words. `knownAt` lists the keys allowed at a place, for suggestions. */
export function firstIssue(error: z.ZodError, root: unknown, knownAt: KnownAt = () => []): string {
  const issue = mostTelling(error.issues);
  return issue ? describe(issue, root, knownAt) : error.message;
}
