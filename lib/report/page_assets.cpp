#include "lib/report/page_assets.h"

namespace ratplus::report {

const std::string_view page_style = R"css(
:root { color-scheme: light dark; --back: #f6f6f4; --card: #ffffff; --ink: #1f2328; --faint: #5c6370; --grid: #e6e6e3;
  --cursor: #8a8a8a; --alarm: #c62828; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b5538c; --c4: #b07900; --c5: #3a9ad9;
  --c6: #555555; --c7: #7a5fc4; }
@media (prefers-color-scheme: dark) {
  :root { --back: #15181c; --card: #1e2227; --ink: #e6e8eb; --faint: #a2a9b4; --grid: #343a42; --cursor: #9aa0a8; --alarm: #ff6f60;
    --c0: #58b0ec; --c1: #f0894a; --c2: #3cc79c; --c3: #de85bb; --c4: #e0ad3c; --c5: #8fd0ff; --c6: #b8bec6;
    --c7: #ab95f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.45 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.35rem; margin: 4px 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 28px 0 8px; }
p { margin: 4px 0; }
.names { overflow-wrap: anywhere; }
.faint, figcaption .at, th { color: var(--faint); }
.notices { background: var(--card); border-left: 5px solid var(--alarm); border-radius: 8px; margin: 12px 0;
  padding: 8px 12px 8px 32px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; border-radius: 8px; padding: 8px 12px; background: var(--card); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 15px; }
th, td { padding: 3px 22px 3px 0; text-align: right; white-space: nowrap; font-weight: normal; vertical-align: top; }
th:first-child, td.text { text-align: left; }
th:first-child { white-space: normal; min-width: min(17em, 38vw); position: sticky; left: 0;
  background: var(--card); }
td:last-child, th:last-child { padding-right: 0; }
th[scope=col] { color: var(--ink); font-weight: 600; white-space: normal; overflow-wrap: anywhere; max-width: 16em; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 8em; }
@media (max-width: 700px) {
  .several table, .several tbody { display: block; }
  .several table { min-width: calc(var(--runs) * 80px - 8px); }
  .several tr { display: grid; grid-template-columns: repeat(var(--runs), minmax(72px, 1fr)); column-gap: 8px; padding: 3px 0; }
  .several tr + tr { border-top: 1px solid var(--grid); }
  .several th, .several td { padding: 0; text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 0; }
  .several th:first-child { grid-column: 1 / -1; justify-self: start; }
  .several th:first-child:empty { display: none; }
  .several td, .several th[scope=col] { font-size: 13.5px; } }
.panels { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 10px 10px 4px; min-width: 0; display: flex;
  flex-direction: column; }
figcaption { font-weight: 600; }
figcaption .at { display: block; font-weight: normal; font-size: 13px; font-variant-numeric: tabular-nums; }
.lines { list-style: none; margin: 4px 0 6px; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 14px; }
.lines li { display: flex; align-items: center; gap: 6px; overflow-wrap: anywhere; }
.lines b { font-variant-numeric: tabular-nums; font-weight: 600; }
.lines svg { width: 26px; height: 10px; flex: none; }
figure > svg { width: 100%; height: auto; display: block; margin-top: auto; touch-action: pan-y; font-family: inherit; }
details { background: var(--card); border-radius: 8px; padding: 8px 12px; margin-top: 10px; }
summary { cursor: pointer; overflow-wrap: anywhere; }
pre { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; overflow-x: auto; margin: 8px 0 0; }
)css";

const std::string_view page_script = R"js(
const data = JSON.parse(document.getElementById("curves").textContent);
const figures = [...document.querySelectorAll("figure")].map((figure, i) => ({
  panel: data.panels[i], svg: figure.querySelector(":scope > svg"), at: figure.querySelector(".at"),
  before: figure.querySelector(".at").textContent,
  cursor: figure.querySelector(":scope > svg > line:last-of-type"),
  values: [...figure.querySelectorAll("li b")].map(b => ({ b, last: b.textContent })) }));

function scaled(y, base, units, whole, gap) {
  let unit = 0;
  for (; Math.abs(y) >= base * (1 - 5e-4) && unit < units.length - 1; ++unit) y /= base;
  const digits = unit === 0 ? 0 : whole ? 1 : y >= 99.95 ? 0 : y >= 9.995 ? 1 : 2;
  return y.toFixed(digits) + gap + units[unit];
}
function duration(y) {
  const size = Math.abs(y), ms = 1000 * y;
  if (size === 0) return "0 s";
  if (size < 0.0995e-3) return String(Number(ms.toPrecision(2))) + " ms";
  if (size < 0.9995) return ms.toFixed(size >= 0.09995 ? 0 : size >= 0.009995 ? 1 : 2) + " ms";
  return y.toFixed(size < 9.9995 ? 3 : 1) + " s";
}
function text(unit, y) {
  if (unit === "nats") return y !== 0 && Math.abs(y) < 5e-5 ? y.toPrecision(2) : y.toFixed(4);
  if (unit === "factor") return y.toExponential(2).replace(/e([-+])(\d)$/, "e$10$2");
  if (unit === "count") return scaled(y, 1000, ["", "k", "M", "B", "T"], false, "");
  if (unit === "bytes") return scaled(y, 1024, ["B", "KiB", "MiB", "GiB", "TiB"], true, " ");
  if (unit === "share") return y > 0 && y < 5e-4 ? "<0.1%" : (100 * y).toFixed(1) + "%";
  if (unit === "seconds") return duration(y);
  if (unit === "whole") return y.toFixed(0);
  return String(Number(y.toPrecision(4)));
}
function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] > x) high = middle; else low = middle;
  }
  return xs[high] - x < x - xs[low] ? high : low;
}
function show(x) {
  const step = data.tokens_per_step > 0 ? ", step " + Math.round(x / data.tokens_per_step) : "";
  for (const f of figures) {
    const across = data.left + data.width * x / data.tokens;
    f.cursor.setAttribute("x1", across);
    f.cursor.setAttribute("x2", across);
    f.at.textContent = scaled(x, 1000, ["", "k", "M", "B", "T"], false, "") + " tokens" + step;
    f.panel.lines.forEach((line, i) => {
      const past = x > line.x[line.x.length - 1] + data.tokens / 100;
      f.values[i].b.textContent = past ? "-" : text(f.panel.unit, line.y[nearest(line.x, x)]);
    });
  }
}
function leave() {
  for (const f of figures) {
    f.cursor.setAttribute("x1", -1);
    f.cursor.setAttribute("x2", -1);
    f.at.textContent = f.before;
    for (const value of f.values) value.b.textContent = value.last;
  }
}
for (const f of figures) {
  const follow = event => {
    const box = f.svg.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width * data.picture;
    show(Math.min(Math.max((across - data.left) / data.width, 0), 1) * data.tokens);
  };
  f.svg.addEventListener("pointermove", follow);
  f.svg.addEventListener("pointerdown", follow);
  f.svg.addEventListener("pointerleave", leave);
}
)js";

}  // namespace ratplus::report
