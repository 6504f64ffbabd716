/**
 * The report's style sheet. Colours are Okabe and Ito's, which colour-blind people tell apart; lighter ones of the same
 * hues in the dark. Fonts are the reader's own.
 */
export const lightColours: Record<string, string> = {
  paper: '#fff',
  ink: '#1b1f24',
  soft: '#57606a',
  hair: '#d8dee4',
  wash: '#f6f8fa',
  c0: '#0072b2',
  c1: '#d55e00',
  c2: '#008a64',
  c3: '#a8508a',
  c4: '#b07600',
  c5: '#3a8fc2',
  c6: '#5b5b5b',
  c7: '#7a5cc7',
};
const light = Object.entries(lightColours)
  .map(([name, value]) => `--${name}:${value};`)
  .join('');
const dark = `--paper:#14171a;--ink:#e6e9ec;--soft:#9aa4ae;--hair:#343b42;--wash:#1d2126;
--c0:#5cb3ec;--c1:#ff8a3d;--c2:#2fc79a;--c3:#e39bc8;--c4:#f0b93a;--c5:#8fd0f5;--c6:#bdbdbd;--c7:#b7a2f2;`;

const colours = Array.from({ length: 8 }, (_, i) => `.c${i}{--c:var(--c${i})}`).join('');

export const style = `:root{color-scheme:light dark;${light}}
@media (prefers-color-scheme:dark){:root{${dark}}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:1.5rem clamp(1rem,3vw,2.5rem) 4rem;max-width:82rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .5rem}
h2{font-size:1.4rem;line-height:1.25;margin:3rem 0 .5rem;padding-top:1rem;border-top:2px solid var(--hair)}
h3{font-size:1.1rem;margin:2.25rem 0 .5rem}
p,ul{margin:.5rem 0;max-width:60rem}
a{color:var(--c0)}
.soft,figcaption p,.range{color:var(--soft)}
.range{font-size:.85em;white-space:nowrap}
.verdicts li{margin:.25rem 0}
.warning{border-left:4px solid var(--c1);background:var(--wash);padding:.5rem .9rem;margin:.75rem 0;max-width:60rem}
.warning p{margin:.2rem 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;margin:.75rem 0}
dt{color:var(--soft)}
dd{margin:0}
figure{margin:1.5rem 0 2.5rem}
figcaption{margin-bottom:.5rem}
figcaption h3,figcaption h4{margin:0}
h4{font-size:1rem;margin:1.5rem 0 .25rem}
figcaption p{margin:.15rem 0}
.beside{display:grid;gap:1rem 2rem;grid-template-columns:minmax(0,1fr);align-items:start}
@media (min-width:70rem){.beside:not(.below){grid-template-columns:minmax(0,35rem) minmax(0,1fr)}}
.chart{display:block;width:100%;max-width:40rem;height:auto;overflow:visible;font-size:13px}
@media (max-width:34rem){.chart{font-size:18px}}
.chart text{fill:var(--ink);font-variant-numeric:tabular-nums}
.y-ticks text{text-anchor:end}
.x-ticks text,.x-label{text-anchor:middle}
.chart .x-ticks text,.chart .y-ticks text{fill:var(--soft)}
.grid path{stroke:var(--hair);stroke-width:1}
.axis path{fill:none;stroke:var(--soft);stroke-width:1}
${colours}
.line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}
.line.paper{stroke-width:2.2;stroke-dasharray:.1 5;stroke-linecap:round}
.marker{fill:var(--c);stroke:var(--c);stroke-width:1.5;stroke-linejoin:round}
.marker.hollow{fill:var(--paper)}
.band{fill:var(--c);opacity:.16}
.whisker{stroke:var(--c);stroke-width:6;opacity:.25}
.rule{fill:none;stroke:var(--ink);stroke-width:1.5;stroke-dasharray:9 5}
.rule1{stroke-dasharray:2 4}
.mark{fill:none;stroke:var(--c);stroke-width:1;stroke-dasharray:2 3}
.mark-label{paint-order:stroke;stroke:var(--paper);stroke-width:4px}
.swatch{flex:none;vertical-align:middle;overflow:visible}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1.25rem;list-style:none;padding:0;margin:.25rem 0;font-size:.9rem}
.legend li{display:flex;gap:.4rem;align-items:center}
.scroll{overflow-x:auto;max-width:100%}
.scroll:focus-visible{outline:2px solid var(--c0)}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;color:var(--soft);padding-bottom:.25rem}
th,td{padding:.2rem .6rem;text-align:right;border-bottom:1px solid var(--hair);vertical-align:baseline}
thead th{font-weight:600;border-bottom:2px solid var(--hair);vertical-align:bottom}
tbody th{font-weight:400}
th.words,td.words{text-align:left;min-width:6.5rem}
.heat td{background:color-mix(in srgb,var(--c0) calc(var(--h)*42%),transparent)}
.heat .range{color:var(--ink)}
.heat table{min-width:min(100%,34rem)}
.scroll+.scroll{margin-top:1.5rem}
summary{cursor:pointer;color:var(--soft);font-size:.9rem}
pre{background:var(--wash);border:1px solid var(--hair);border-radius:6px;padding:.75rem 1rem;white-space:pre-wrap;
font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media (max-width:34rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.4rem}}
@media print{:root{color-scheme:light;${light}}body{max-width:none;padding:0;font-size:10pt}
figure,tr,.warning{break-inside:avoid}h2,h3,figcaption{break-after:avoid}.scroll{overflow:visible}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}`;
