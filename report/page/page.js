"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const STATES = {
  p: ["✓", "kept", "passed"], x: ["!", "known-issue", "expected failure"], s: ["–", "not-offered", "skipped"],
  f: ["✗", "broken", "failed"], t: ["✗", "broken", "timeout"], c: ["✗", "broken", "crashed"],
};
const RANK = "psxtfc"; // what a folded field shows: the last of these
const rows = [...document.querySelectorAll("tr.clause")];

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// -- filter and search

const search = document.getElementById("search");
const only = document.getElementById("only");

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rows) {
    const text = row.firstElementChild.textContent.toLowerCase();
    const ids = () => (data.cases[row.id] || []).map((one) => one[0]).join(" ");
    const found = words.every((word) => text.includes(word) || ids().includes(word));
    const wanted = !only.value || row.classList.contains(only.value) || row.querySelector("td." + only.value);
    row.hidden = !(found && wanted);
  }
  for (const chapter of document.querySelectorAll(".matrix tbody")) {
    chapter.hidden = !chapter.querySelector("tr.clause:not([hidden])");
  }
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("shown").textContent = `${shown} of ${rows.length} clauses`;
}
search.addEventListener("input", filter);
only.addEventListener("change", filter);
document.querySelector(".filter").addEventListener("submit", (event) => event.preventDefault());
filter();

// -- arrow keys in the matrix; one of its cells can be tabbed to

const matrix = document.querySelector(".matrix");
let current = matrix.querySelector("td button");
if (current) current.tabIndex = 0;

function go(button) {
  current.tabIndex = -1;
  current = button;
  current.tabIndex = 0;
  current.focus();
}
matrix.addEventListener("keydown", (event) => {
  const button = event.target.closest("td button");
  if (!button) return;
  const shown = rows.filter((row) => !row.hidden);
  const row = shown.indexOf(button.closest("tr"));
  const column = Number(button.dataset.kernel);
  const to = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1] }[event.key];
  const next = to && shown[to[0]] && shown[to[0]].querySelector(`button[data-kernel="${to[1]}"]`);
  if (next) {
    event.preventDefault();
    go(next);
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, dialog")) {
    event.preventDefault();
    search.focus();
  }
});

// -- what a cell opens to

const dialog = document.getElementById("cell");

function worst(letters) {
  return [...letters].sort((a, b) => RANK.indexOf(b) - RANK.indexOf(a))[0];
}

// memory kind by THP and features: each field the worst of its cases
function fold(cases, kernel) {
  const fields = new Map();
  const columns = new Set();
  for (const [, axes, letters] of cases) {
    const [kind, , thp, features] = axes.map((number) => data.texts[number]);
    if (letters[kernel] === " " || !kind) continue;
    const column = [features, thp && `THP ${thp}`].filter(Boolean).join(", ") || "any";
    columns.add(column);
    const line = fields.get(kind) || new Map();
    line.set(column, (line.get(column) || "") + letters[kernel]);
    fields.set(kind, line);
  }
  if (!fields.size) return null;
  const table = element("table");
  const head = table.createTHead().insertRow();
  const sorted = [...columns].sort();
  for (const title of ["memory kind", ...sorted]) head.append(element("th", title));
  const body = table.createTBody();
  for (const [kind, line] of fields) {
    const row = body.insertRow();
    row.append(element("th", kind));
    for (const column of sorted) {
      const letters = line.get(column);
      const [symbol, className, word] = letters ? STATES[worst(letters)] : ["", "", ""];
      const field = element("td", undefined, className);
      field.append(element("b", symbol), letters ? ` ${letters.length}` : "");
      field.title = word;
      row.append(field);
    }
  }
  const wide = element("div", undefined, "wide");
  wide.append(table);
  return wide;
}

function disclosed(summary, className, ...inside) {
  const details = element("details");
  const line = element("summary", undefined, className);
  line.append(...summary);
  details.append(line, ...inside);
  return details;
}

// what went wrong, each with its evidence; what was skipped, by reason; what passed
function listed(cases, kernel) {
  const made = element("div");
  const told = (one) => one[3][kernel].map((number) => data.texts[number]);
  const wrong = cases.filter(([, , letters]) => !"ps".includes(letters[kernel]));
  wrong.sort((a, b) => RANK.indexOf(b[2][kernel]) - RANK.indexOf(a[2][kernel]));
  for (const one of wrong) {
    const [symbol, className, word] = STATES[one[2][kernel]];
    const [reason, evidence, reproducer] = told(one);
    const [head, ...rest] = reason.split("\n");
    const inside = [element("p", head, "reason")];
    if (reproducer) {
      const link = element("a", "the same as one C file");
      link.href = reproducer.split("/").map(encodeURIComponent).join("/");
      inside.push(link);
    }
    const more = [rest.join("\n"), evidence].filter(Boolean).join("\n\n");
    if (more) inside.push(element("pre", more));
    made.append(disclosed([element("b", symbol), ` ${word}: ${one[0]}`], className, ...inside));
  }
  if (wrong.length) made.firstElementChild.open = true;
  const skipped = new Map();
  for (const one of cases.filter(([, , letters]) => letters[kernel] === "s")) {
    const [reason] = told(one);
    skipped.set(reason, [...(skipped.get(reason) || []), one[0]]);
  }
  for (const [reason, ids] of skipped) {
    made.append(disclosed([element("b", "–"), ` ${ids.length} skipped: ${reason}`], "not-offered", element("pre", ids.join("\n"))));
  }
  const passed = cases.filter(([, , letters]) => letters[kernel] === "p").map(([id]) => id);
  if (passed.length) {
    made.append(disclosed([element("b", "✓"), ` ${passed.length} passed`], "kept", element("pre", passed.join("\n"))));
  }
  return made;
}

function show(button) {
  const clause = button.closest("tr");
  const kernel = Number(button.dataset.kernel);
  const cases = (data.cases[clause.id] || []).filter(([, , letters]) => letters[kernel] !== " ");
  document.getElementById("cell-title").textContent = `${clause.id} on ${data.kernels[kernel]}: ${button.title}`;
  document.getElementById("cell-clause").textContent = clause.querySelector("span").textContent;
  const body = document.getElementById("cell-body");
  body.replaceChildren();
  if (!cases.length) body.append(element("p", "No case of this clause has a result on this kernel."));
  const folded = fold(cases, kernel);
  if (cases.length) body.append(element("h3", "Cases"), listed(cases, kernel));
  if (folded) body.append(element("h3", "Where it was tried"), folded);
  dialog.showModal();
  dialog.scrollTop = 0;
}

// -- an open cell has an address, #CLAUSE/KERNEL, and no filter hides what an address names

matrix.addEventListener("click", (event) => {
  const button = event.target.closest("td button");
  if (!button) return;
  go(button);
  show(button);
  history.replaceState(null, "", `#${button.closest("tr").id}/${encodeURIComponent(data.kernels[button.dataset.kernel])}`);
});
dialog.addEventListener("close", () => history.replaceState(null, "", location.hash.split("/")[0]));

function follow() {
  const [clause, name] = decodeURIComponent(location.hash.slice(1)).split("/");
  const row = rows.find((one) => one.id === clause);
  if (row && row.hidden) {
    search.value = only.value = "";
    filter();
    row.scrollIntoView();
  }
  const button = name && row && row.querySelector(`button[data-kernel="${data.kernels.indexOf(name)}"]`);
  if (!button) return;
  row.scrollIntoView({ block: "center" });
  go(button);
  show(button);
}
addEventListener("hashchange", follow);
follow();
