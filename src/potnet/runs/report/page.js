"use strict";
// Fills the page of potnet.runs.report from the JSON in #data. Text goes in as text, never as HTML.
// The address may end in #sort=COLUMN or #sort=-COLUMN, which sorts every table.

const MARK = "#e08214", OTHER = "#2166ac", INK = "#222222", GRID = "#e3e3e3";
const DATA = JSON.parse(document.getElementById("data").textContent);

window.addEventListener("error", event => { document.body.dataset.error = event.message; });

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.map(child => child ?? ""));
  return node;
}

const digits = (value, n = 4) => value == null ? "" : value.toFixed(n);
const signed = (value, n = 4) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(n);
const spread = value => value == null ? "" : digits(value.mean) + (value.sd == null ? "" : " ± " + digits(value.sd));

// Columns: id, heading, text of a cell, value to sort by (null comes last).
function columns(section) {
  const difference = row => row.difference;
  return [
    ["name", "row", row => row.name, row => row.name],
    ["runs", "runs", row => row.finished === row.begun ? row.begun : `${row.finished} of ${row.begun}`, row => row.finished],
    ["val", "val MAE", row => spread(row.val), row => row.val?.mean],
    ["test", "test MAE", row => spread(row.test), row => row.test?.mean],
    ["difference", `difference (${section.part})`,
      row => row.name === section.reference ? "reference" : difference(row) == null ? ""
        : signed(row.difference.mean) + (row.difference.sd == null ? "" : " ± " + digits(row.difference.sd)),
      row => row.name === section.reference ? 0 : row.difference?.mean],
    ["interval", "95 % over crystals",
      row => difference(row) == null ? "" : `${signed(row.difference.low)} to ${signed(row.difference.high)}`,
      row => row.difference?.low],
    ["p", "p", row => difference(row) == null ? "" : row.difference.p < 0.001 ? "< 0.001" : digits(row.difference.p, 3),
      row => row.difference?.p],
    ["published", "published", row => row.published ?? "", row => row.published],
    ["parameters", "parameters", row => row.parameters?.toLocaleString("en").replaceAll(",", "\u202f") ?? "", row => row.parameters],
    ["epoch", "s / epoch", row => digits(row.epoch?.mean, 1), row => row.epoch?.mean],
    ["total", "min in all", row => row.total == null ? "" : digits(row.total.mean / 60, 1), row => row.total?.mean],
  ].filter(([id, , text]) => id === "name" || section.rows.some(row => text(row) !== ""));
}

function sortableTable(section) {
  const cols = columns(section), body = element("tbody");
  const heads = cols.map(([id, heading]) =>
    element("th", { scope: "col", "data-column": id }, element("button", { type: "button" }, heading)));
  let current = { id: null, descending: false };

  function fill(rows) {
    body.replaceChildren(...rows.map(row => element(
      "tr", row.name === section.reference ? { class: "reference" } : {},
      ...cols.map(([, , text]) => element("td", {}, String(text(row)))))));
  }
  function sort(id, descending) {
    const column = cols.find(c => c[0] === id);
    if (!column) return;
    const sign = descending ? -1 : 1, value = column[3];
    const rows = [...section.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x == null || y == null) return (x == null) - (y == null);
      return sign * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
    });
    current = { id, descending };
    for (const head of heads) {
      if (head.dataset.column === id) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    fill(rows);
  }
  for (const head of heads) head.firstChild.addEventListener("click", () => {
    const id = head.dataset.column;
    sort(id, current.id === id && !current.descending);
  });
  fill(section.rows);
  const asked = new URLSearchParams(location.hash.slice(1)).get("sort");
  if (asked) sort(asked.replace(/^-/, ""), asked.startsWith("-"));
  return element("div", { class: "scroll" },
    element("table", { class: "rows" }, element("thead", {}, element("tr", {}, ...heads)), body));
}

function layout(x, y, more = {}) {
  return {
    font: { family: "system-ui, sans-serif", color: INK },
    margin: { l: 60, r: 12, t: 30, b: 48 }, hoverlabel: { align: "left" }, paper_bgcolor: "white", plot_bgcolor: "white",
    xaxis: { title: { text: x }, gridcolor: GRID, zeroline: false, automargin: true, ...more.xaxis },
    yaxis: { title: { text: y }, gridcolor: GRID, zeroline: false, automargin: true, ...more.yaxis },
    showlegend: false, ...more.layout,
  };
}

// Plotly's own list of buttons has one that sends the plot elsewhere.
const BUTTONS = [["zoom2d", "pan2d", "resetScale2d", "toImage"]];
const draw = (node, traces, shape) =>
  Plotly.newPlot(node, traces, shape, { responsive: true, displaylogo: false, modeBarButtons: BUTTONS });

function drawErrors(node, section) {
  const rows = section.rows.filter(row => row[section.part]);
  const color = row => row.name === section.reference ? MARK : OTHER;
  const means = {
    type: "scatter", mode: "markers", x: rows.map(row => row[section.part].mean), y: rows.map(row => row.name),
    marker: { symbol: "line-ns-open", size: 13, color: rows.map(color), line: { width: 2 } },
    error_x: { type: "data", array: rows.map(row => row[section.part].sd ?? 0), color: "#7a93ad", thickness: 1.6 },
    hovertemplate: "%{y}: %{x:.4f}<extra></extra>",
  };
  const dots = rows.flatMap(row => row.runs.map(run => ({ row, run })));
  const runs = {
    type: "scatter", mode: "markers", x: dots.map(d => d.run.mae), y: dots.map(d => d.row.name),
    text: dots.map(d => d.run.folder), marker: { size: 7, opacity: 0.55, color: dots.map(d => color(d.row)) },
    hovertemplate: "%{text}<br>%{x:.4f}<extra></extra>",
  };
  node.style.height = `${140 + 26 * rows.length}px`;
  draw(node, [means, runs], layout(
    `${section.part} MAE${section.unit ? ", " + section.unit : ""}`, "",
    { yaxis: { autorange: "reversed", type: "category" } }));
}

function drawCurves(node, section) {
  const traces = section.rows.filter(row => row.curve.length).map((row, i) => {
    const reference = row.name === section.reference;
    const x = row.curve.map(point => point[0]), y = row.curve.map(point => point[1]);
    return {
      type: "scatter", mode: x.length < 3 ? "lines+markers" : "lines", name: row.name, x, y,
      line: reference ? { color: INK, width: 3.5 } : { width: 1.6, dash: ["solid", "dash", "dot", "dashdot"][Math.floor(i / 10) % 4] },
      customdata: row.curve.map(point => point.slice(2)),
      hovertemplate: "epoch %{x}: %{y:.4f} (%{customdata[0]:.4f} to %{customdata[1]:.4f})",
    };
  });
  node.style.height = `${Math.max(440, 140 + 26 * section.rows.length)}px`;
  draw(node, traces, layout(
    "epoch", `val MAE${section.unit ? ", " + section.unit : ""}`,
    { yaxis: { type: "log" }, layout: { showlegend: true, hovermode: "closest" } }));
}

function comparison(section) {
  const names = section.rows.map(row => row.name);
  const choice = (label, chosen) => {
    const node = element("select", { "aria-label": label }, ...names.map(name => element("option", { value: name }, name)));
    node.value = chosen;
    return node;
  };
  const other = section.rows.find(row => row.name !== section.reference && row.finished) ?? section.rows.at(-1);
  const first = choice("first row", section.reference), second = choice("second row", other.name);
  const settings = element("div", { class: "scroll" }), plot = element("div", { class: "crystals" });
  const caption = element("p", { class: "note" });

  function show() {
    const [a, b] = [first, second].map(node => section.rows.find(row => row.name === node.value));
    const keys = [...new Set([...Object.keys(a.settings), ...Object.keys(b.settings)])]
      .filter(key => a.settings[key] !== b.settings[key]).sort();
    settings.replaceChildren(keys.length === 0 ? element("p", { class: "note" }, "no setting differs")
      : element("table", { class: "settings" },
        element("thead", {}, element("tr", {}, ...["setting", a.name, b.name].map(t => element("th", { scope: "col" }, t)))),
        element("tbody", {}, ...keys.map(key => element("tr", {},
          ...[key, a.settings[key], b.settings[key]].map(t => element("td", {}, t ?? "")))))));
    const ids = Object.keys(a.errors).filter(id => id in b.errors);
    const x = ids.map(id => a.errors[id]), y = ids.map(id => b.errors[id]);
    const unit = section.unit ? ", " + section.unit : "";
    const range = [0, [...x, ...y].reduce((a, b) => Math.max(a, b), 0)];
    const better = ids.filter(id => b.errors[id] < a.errors[id]).length;
    plot.style.height = "520px";
    draw(plot, [
      { type: "scatter", mode: "lines", x: range, y: range, line: { color: INK, width: 1 }, hoverinfo: "skip" },
      { type: "scatter", mode: "markers", x, y, text: ids, marker: { size: 6, opacity: 0.5, color: OTHER },
        hovertemplate: "%{text}<br>%{x:.4f}, %{y:.4f}<extra></extra>" },
    ], layout(`|error| of ${a.name}${unit}`, `|error| of ${b.name}${unit}`));
    caption.textContent = `Each dot is a ${section.part} crystal, the mean over runs: ${b.name} is better on ${better} of `
      + `${ids.length}, those below the line.`;
  }
  first.addEventListener("change", show);
  second.addEventListener("change", show);
  const node = element("div", { class: "comparison" }, element("h3", {}, "Two rows compared"),
    element("p", {}, "Compare", first, "with", second), settings, caption, plot);
  return [node, show];
}

function section(data) {
  const errors = element("div", { class: "errors" }), curves = element("div", { class: "curves" });
  const [compared, show] = comparison(data);
  document.getElementById("report").append(element("section", { id: data.key },
    element("h2", {}, data.title), sortableTable(data),
    element("ul", { class: "note" }, ...data.published.map(line => element("li", {}, line))),
    element("div", { class: "plots" },
      element("div", {}, element("h3", {}, "Every run, mean and standard deviation"), errors),
      element("div", {}, element("h3", {}, "Validation by epoch, mean over runs"),
        element("p", { class: "note" }, "A click on a name hides it, two clicks leave it alone."), curves)), compared,
    element("details", {}, element("summary", {}, "Settings that all rows share"), element("table", { class: "settings" },
      element("tbody", {}, ...Object.entries(data.common).map(pair => element("tr", {}, ...pair.map(t => element("td", {}, t)))))))));
  drawErrors(errors, data);
  drawCurves(curves, data);
  show();
}

DATA.sections.forEach(section);
if (DATA.missing.length) {
  document.getElementById("report").append(element("h2", {}, "Not in these figures"),
    element("ul", { id: "missing" }, ...DATA.missing.map(line => element("li", {}, line))));
}
document.body.dataset.ready = "true";
