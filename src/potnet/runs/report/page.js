"use strict";
// Fills the page of potnet.runs.report from the JSON in #data. Text goes in as text, never as HTML.
// The address may end in #sort=COLUMN or #sort=-COLUMN, which sorts every table.

const SVG = "http://www.w3.org/2000/svg";
const DATA = JSON.parse(document.getElementById("data").textContent);

window.addEventListener("error", event => { document.body.dataset.error = event.message; });
window.addEventListener("unhandledrejection", event => { document.body.dataset.error = String(event.reason); });

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
      "tr", { "data-name": row.name, ...(row.name === section.reference ? { class: "reference" } : {}) },
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

// A picture, drawn as SVG when the report was made.
function picture(data, name) {
  const node = element("div", { class: name });
  node.innerHTML = data.pictures[name] ?? "";
  return node;
}

// Pointing at a row of a table brings out what belongs to it in the pictures of its section.
function connect(section) {
  const marks = [...section.querySelectorAll("[data-row]")];
  section.addEventListener("mouseover", event => {
    const row = event.target.closest("[data-row], tr[data-name]"), name = row?.dataset.row ?? row?.dataset.name;
    section.classList.toggle("pointed", marks.some(mark => mark.dataset.row === name));
    for (const mark of marks) mark.classList.toggle("here", mark.dataset.row === name);
  });
}

// Points in a square from 0 to the largest value, with the diagonal; drawn here, as the two rows are chosen here.
function square(x, y, titles, xlabel, ylabel) {
  const size = 460, left = 56, top = 10, side = size - left - 44, most = [...x, ...y].reduce((a, b) => Math.max(a, b), 1e-12);
  const at = value => side * value / most;
  const node = (tag, attributes, ...children) => {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const step = 10 ** Math.floor(Math.log10(most / 2)), every = [1, 2, 5, 10].find(n => most / (n * step) <= 6) * step;
  const ticks = [...Array(Math.floor(most / every) + 1).keys()].map(n => +(n * every).toPrecision(3));
  const grid = ticks.flatMap(tick => [
    node("path", { d: `M${at(tick)} 0V${side}M0 ${side - at(tick)}H${side}`, stroke: "#ddd" }),
    node("text", { x: at(tick), y: side + 16, "text-anchor": "middle" }, String(tick)),
    node("text", { x: -6, y: side - at(tick) + 4, "text-anchor": "end" }, String(tick))]);
  const dots = x.map((value, i) => node("circle",
    { cx: at(value).toFixed(1), cy: (side - at(y[i])).toFixed(1), r: 3, fill: "#2166ac", "fill-opacity": 0.5 },
    node("title", {}, `${titles[i]}: ${value.toFixed(4)}, ${y[i].toFixed(4)}`)));
  return node("svg", { viewBox: `0 0 ${size} ${size}`, "font-size": 11 }, node("g", { transform: `translate(${left},${top})` },
    ...grid, node("path", { d: `M0 ${side}L${side} 0`, stroke: "#222" }), ...dots,
    node("text", { x: side / 2, y: side + 36, "text-anchor": "middle" }, xlabel),
    node("text", { x: -side / 2, y: -42, "text-anchor": "middle", transform: "rotate(-90)" }, ylabel)));
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
    const both = section.crystals.map((id, i) => [id, a.errors[i], b.errors[i]]).filter(each => each[1] != null && each[2] != null);
    const [ids, x, y] = [0, 1, 2].map(i => both.map(each => each[i]));
    const unit = section.unit ? ", " + section.unit : "";
    const better = ids.filter((_, i) => y[i] < x[i]).length;
    plot.replaceChildren(square(x, y, ids, `|error| of ${a.name}${unit}`, `|error| of ${b.name}${unit}`));
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
  const [compared, show] = data.rows.length > 1 ? comparison(data) : ["", () => {}];
  const section = element("section", { id: data.key },
    element("h2", {}, data.title), sortableTable(data),
    element("ul", { class: "note" }, ...data.published.map(line => element("li", {}, line))),
    element("div", { class: "plots" },
      titled("Every run, mean and standard deviation", "Point at a row, here or in the table, to see it alone.", picture(data, "errors")),
      titled("Validation by epoch, mean over runs", "The band is from the least to the most of the runs.", picture(data, "learning"))),
    compared,
    element("details", {}, element("summary", {}, "Settings that all rows share"), element("table", { class: "settings" },
      element("tbody", {}, ...Object.entries(data.common).map(pair => element("tr", {}, ...pair.map(t => element("td", {}, t))))))));
  document.getElementById("report").append(section);
  connect(section);
  show();
}

function plainTable(heads, rows, name, marked = () => "", names = []) {
  return element("div", { class: "scroll" }, element("table", { class: name },
    element("thead", {}, element("tr", {}, ...heads.map(text => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map((cells, i) => element("tr",
      { ...(marked(i) ? { class: marked(i) } : {}), ...(names[i] ? { "data-name": names[i] } : {}) },
      ...cells.map(text => element("td", {}, text)))))));
}

function titled(heading, note, node) {
  return element("div", {}, element("h3", {}, heading), ...(note ? [element("p", { class: "note" }, note)] : []), node);
}

// One run by itself.
function single(data) {
  const names = { mae: "MAE", rmse: "RMSE", r2: "R²", roc_auc: "ROC AUC", log_loss: "log loss", n: "crystals" };
  const keys = [...new Set(data.metrics.flatMap(row => Object.keys(row)))].filter(key => data.metrics.some(row => row[key]));
  const parts = [];
  if (data.pictures.parity) parts.push(titled(`Predictions of the ${data.part} part`, "Point at a dot to see its crystal.", picture(data, "parity")));
  if (data.pictures.learning) parts.push(titled("Error by epoch", "", picture(data, "learning")));
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
  const heads = ["rank", "trial", ...data.parameters, `val ${data.measure}`, `test ${data.measure}`, "epochs", "min in all"];
  const rows = data.rows.map((row, i) => [row.val ? i + 1 : "-", row.trial, ...row.shown, spread(row.val), spread(row.test), row.epochs,
    row.total == null ? "" : digits(row.total.mean / 60, 1)].map(String));
  const section = element("section", { id: data.key }, element("h2", {}, data.title),
    plainTable(heads, rows, "rows", i => data.rows[i].name === data.reference ? "best" : "", data.rows.map(row => row.name)),
    titled("All trials", "A line is a trial; the best is orange, darker lines are better. Point at one, or at its row above.",
      picture(data, "parallel")),
    titled("In the order in which they ran", "", picture(data, "trials")));
  document.getElementById("report").append(section);
  connect(section);
}

function show() {
  const facts = Object.entries(DATA.facts);
  if (facts.length) document.getElementById("report").append(element("table", { class: "facts" }, element("tbody", {},
    ...facts.map(pair => element("tr", {}, ...pair.map(text => element("td", {}, text)))))));
  DATA.sections.forEach({ run: single, study, search }[DATA.kind]);
  if (DATA.missing.length) {
    document.getElementById("report").append(element("h2", {}, "Not in these figures"),
      element("ul", { id: "missing" }, ...DATA.missing.map(line => element("li", {}, line))));
  }
  document.body.dataset.ready = "true";
}
show();
