"use strict";
// Fills the page of potnet.runs.report from the JSON in #data. Text goes in as text, never as HTML.
// The address may end in #sort=COLUMN or #sort=-COLUMN, which sorts every table.

const MARK = "#e08214", OTHER = "#2166ac", INK = "#222222", GRID = "#e3e3e3";
const DATA = JSON.parse(document.getElementById("data").textContent);

window.addEventListener("error", event => { document.body.dataset.error = event.message; });
window.addEventListener("unhandledrejection", event => { document.body.dataset.error = String(event.reason); });

// Plotly's script lies in the page compressed, as it is large: gzip, then base64.
async function loadPlotly() {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

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
    ["val", `val ${section.measure}`, row => spread(row.val), row => row.val?.mean],
    ["test", `test ${section.measure}`, row => spread(row.test), row => row.test?.mean],
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
  const color = row => row.color;
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
    section.labels[section.part], "", { yaxis: { autorange: "reversed", type: "category" } }));
}

function drawCurves(node, section) {
  const traces = section.rows.filter(row => row.curve.length).map(row => {
    const reference = row.name === section.reference;
    const x = row.curve.map(point => point[0]), y = row.curve.map(point => point[1]);
    return {
      type: "scatter", mode: x.length < 3 ? "lines+markers" : "lines", name: row.name, x, y,
      line: { color: row.color, dash: row.dash, width: reference ? 3.5 : 1.6 },
      customdata: row.curve.map(point => point.slice(2)),
      hovertemplate: "epoch %{x}: %{y:.4f} (%{customdata[0]:.4f} to %{customdata[1]:.4f})",
    };
  });
  node.style.height = `${Math.max(440, 140 + 26 * section.rows.length)}px`;
  draw(node, traces, layout(
    "epoch", section.labels.val,
    { yaxis: { type: section.measure === "MAE" ? "log" : "linear" }, layout: { showlegend: true, hovermode: "closest" } }));
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

function study(data) {
  const errors = element("div", { class: "errors" }), curves = element("div", { class: "curves" });
  const [compared, show] = data.rows.length > 1 ? comparison(data) : ["", () => {}];
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

function plainTable(heads, rows, name, marked = () => "") {
  return element("div", { class: "scroll" }, element("table", { class: name },
    element("thead", {}, element("tr", {}, ...heads.map(text => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map((cells, i) => element("tr", marked(i) ? { class: marked(i) } : {},
      ...cells.map(text => element("td", {}, text)))))));
}

function titled(heading, note, node) {
  return element("div", {}, element("h3", {}, heading), ...(note ? [element("p", { class: "note" }, note)] : []), node);
}

// One run by itself.
function single(data) {
  const parity = element("div", { class: "parity" }), curves = element("div", { class: "curves" });
  const names = { mae: "MAE", rmse: "RMSE", r2: "R²", roc_auc: "ROC AUC", log_loss: "log loss", n: "crystals" };
  const keys = [...new Set(data.metrics.flatMap(row => Object.keys(row)))].filter(key => data.metrics.some(row => row[key]));
  const parts = [];
  if (data.pairs.length) parts.push(titled(`Predictions of the ${data.part} part`, "", parity));
  if (data.val_curve.length || data.train_curve.length) parts.push(titled("Error by epoch", "", curves));
  const nodes = [element("h2", {}, data.title),
    plainTable(keys.map(key => key === "part" ? "" : names[key] ?? key), data.metrics.map(row => keys.map(key => row[key] ?? "")), "rows"),
    element("ul", { class: "note" }, ...data.published.map(line => element("li", {}, line))),
    element("div", { class: "plots" }, ...parts)];
  if (data.elements.length) nodes.push(titled("Error by element",
    "Mean error of the test crystals that contain the element, and how many these are; pale and dashed: too few to be sure.",
    elementTable(data)));
  if (data.worst.length) nodes.push(titled("The largest errors", "", plainTable(
    ["crystal", "formula", `value${data.target_unit ? ", " + data.target_unit : ""}`, "predicted",
      `error${data.unit ? ", " + data.unit : ""}`], data.worst, "worst")));
  document.getElementById("report").append(element("section", { id: data.key }, ...nodes));
  if (data.pairs.length) drawParity(parity, data);
  if (data.val_curve.length || data.train_curve.length) drawEpochs(curves, data);
}

function drawParity(node, data) {
  const x = data.pairs.map(p => p[1]), y = data.pairs.map(p => p[2]);
  const both = [...x, ...y].filter(value => !data.log || value > 0);
  const range = [both.reduce((a, b) => Math.min(a, b)), both.reduce((a, b) => Math.max(a, b))];
  const unit = data.target_unit ? ` (${data.target_unit})` : "", type = data.log ? "log" : "linear";
  node.style.height = "480px";
  draw(node, [
    { type: "scatter", mode: "lines", x: range, y: range, line: { color: INK, width: 1 }, hoverinfo: "skip" },
    { type: "scatter", mode: "markers", x, y, text: data.pairs.map(p => p[0]), marker: { size: 6, opacity: 0.55, color: OTHER },
      hovertemplate: "%{text}<br>%{x:.4g}, predicted %{y:.4g}<extra></extra>" },
  ], layout(`${data.name}${unit}`, `predicted${unit}`, { xaxis: { type }, yaxis: { type } }));
}

function drawEpochs(node, data) {
  const line = (name, points, color) => ({ type: "scatter", mode: points.length < 3 ? "lines+markers" : "lines", name,
    x: points.map(p => p[0]), y: points.map(p => p[1]), line: { color, width: 2 }, hovertemplate: "epoch %{x}: %{y:.4f}" });
  node.style.height = "480px";
  draw(node, [line("training", data.train_curve, "#9aa5b1"), line("validation", data.val_curve, MARK)],
    layout("epoch", data.labels[""], { yaxis: { type: data.measure === "MAE" ? "log" : "linear" },
      layout: { showlegend: true, legend: { x: 1, xanchor: "right", y: 1 } } }));
}

function elementTable(data) {
  const errors = data.elements.map(entry => entry.error).sort((a, b) => a - b);
  const top = errors[Math.floor(0.95 * (errors.length - 1))] || 1;
  const grid = element("div", { class: "elements" });
  for (const entry of data.elements) {
    const share = Math.min(entry.error / top, 1), light = 97 - 50 * share;
    const cell = element("div", { title: `${entry.symbol}: ${entry.error.toFixed(4)} over ${entry.crystals} crystals` },
      entry.symbol, element("small", {}, String(entry.crystals)));
    // Lanthanides and actinides stand below the table.
    cell.style.gridRow = String(Math.round(entry.row + 1)); cell.style.gridColumn = String(entry.column + 1);
    cell.style.background = entry.unsure ? `hsl(${45 - 40 * share} 60% ${98 - 10 * share}%)` : `hsl(${45 - 40 * share} 90% ${light}%)`;
    if (entry.unsure) cell.className = "unsure";
    grid.append(cell);
  }
  return grid;
}

// Trials of a search, the best first.
function search(data) {
  const parallel = element("div", { class: "parallel" }), order = element("div", { class: "trials" });
  const heads = ["rank", "trial", ...data.parameters, `val ${data.measure}`, `test ${data.measure}`, "epochs", "min in all"];
  const rows = data.rows.map((row, i) => [row.val ? i + 1 : "-", row.trial, ...row.shown, spread(row.val), spread(row.test), row.epochs,
    row.total == null ? "" : digits(row.total.mean / 60, 1)].map(String));
  document.getElementById("report").append(element("section", { id: data.key }, element("h2", {}, data.title),
    plainTable(heads, rows, "rows", i => data.rows[i].name === data.reference ? "best" : ""),
    titled("All trials", "A line is a trial; the best is orange, darker lines are better.", parallel),
    titled("In the order in which they ran", "", order)));
  if (!data.trials.length) return;
  const { axes, labels, lines } = data.coordinates, n = lines.length;
  const traces = [...lines.entries()].reverse().map(([rank, line]) => {
    const grey = Math.round(40 + 180 * rank / Math.max(n - 1, 1));
    return { type: "scatter", mode: "lines", x: axes.map((_, i) => i), y: line.places, name: line.name,
      line: rank === 0 ? { color: MARK, width: 4 } : { color: `rgb(${grey},${grey},${grey + 8})`, width: 1.4 },
      text: axes.map(() => `${line.name}<br>${line.error.toFixed(4)}`), hovertemplate: "%{text}<extra></extra>" };
  });
  const annotations = axes.flatMap((name, i) => [
    { x: i, y: 1.12, text: name, showarrow: false, font: { size: 13 } },
    ...labels[i].map(([y, text]) => ({ x: i, y, text, showarrow: false, xanchor: "left", xshift: 5, font: { size: 11, color: OTHER } }))]);
  const shapes = axes.map((_, i) => ({ type: "line", x0: i, x1: i, y0: 0, y1: 1, line: { color: INK, width: 1 } }));
  parallel.style.height = "440px";
  draw(parallel, traces, layout("", "", { layout: { annotations, shapes, hovermode: "closest" },
    xaxis: { visible: false, range: [-0.2, axes.length - 0.4] }, yaxis: { visible: false, range: [-0.08, 1.2] } }));
  order.style.height = "360px";
  draw(order, [
    { type: "scatter", mode: "markers", x: data.trials.map(t => t[0]), y: data.trials.map(t => t[1]), marker: { color: OTHER, size: 7 },
      hovertemplate: "trial %{x}: %{y:.4f}<extra></extra>" },
    { type: "scatter", mode: "lines", x: data.trials.map(t => t[0]), y: data.trials.map(t => t[2]), line: { color: MARK, shape: "hv" },
      hovertemplate: "best so far %{y:.4f}<extra></extra>" },
  ], layout("trial", data.labels.val, { yaxis: { type: "log" } }));
}

async function show() {
  const facts = Object.entries(DATA.facts);
  if (facts.length) document.getElementById("report").append(element("table", { class: "facts" }, element("tbody", {},
    ...facts.map(pair => element("tr", {}, ...pair.map(text => element("td", {}, text)))))));
  await loadPlotly();
  DATA.sections.forEach({ run: single, study, search }[DATA.kind]);
  if (DATA.missing.length) {
    document.getElementById("report").append(element("h2", {}, "Not in these figures"),
      element("ul", { id: "missing" }, ...DATA.missing.map(line => element("li", {}, line))));
  }
  document.body.dataset.ready = "true";
}
show();
