
"use strict";
// Sorting for every table of class "sortable"; search, filters and pages for the changed rows.
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function keyOf(row, column) {
  const cell = row.cells[column];
  const key = cell && cell.dataset.key;
  if (key !== undefined) return Number(key);
  const text = cell ? cell.textContent.trim() : "";
  return text === "" || text === "–" ? null : text;
}

// Numbers before texts, nothing last in both directions.
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * collator.compare(String(a), String(b));
}

function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const sign = direction === "ascending" ? 1 : -1;
  // Keys are read once: a sort of 2,000 rows asks for them 20,000 times.
  const rows = Array.from(body.rows, (row, place) => ({ row, place, key: keyOf(row, column) }));
  rows.sort((a, b) => compare(a.key, b.key, sign) || a.place - b.place);
  body.append(...rows.map(({ row }) => row));
  Array.from(table.tHead.rows[0].cells).forEach((head, n) => head.setAttribute("aria-sort", n === column ? direction : "none"));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      // A number is most wanted from its highest; a text from its first.
      const first = head.classList.contains("n") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      sortBy(table, column, head.getAttribute("aria-sort") === first ? other : first);
      if (table.id === "flip-table") show();
    });
  });
}

const flips = document.getElementById("flip-table");
const pageRows = 20;
let shownRows = pageRows;

function show() {
  const words = document.getElementById("flip-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = ["kind", "old", "new"].map((name) => [name, document.getElementById("flip-" + name).value]);
  let matching = 0;
  for (const row of flips.tBodies[0].rows) {
    const fits = wanted.every(([name, value]) => value === "" || row.dataset[name] === value)
      && words.every((word) => searched.get(row).includes(word));
    if (fits) matching += 1;
    row.hidden = !fits || matching > shownRows;
  }
  const all = flips.tBodies[0].rows.length;
  const visible = Math.min(matching, shownRows);
  document.getElementById("flip-count").textContent = matching === 0
    ? "No row matches. Clear the search or a filter."
    : `${visible} of ${matching} rows shown` + (matching < all ? `, ${all} in all` : "");
  document.querySelector(".more").hidden = visible === matching;
}

const searched = new Map();
if (flips) {
  for (const row of flips.tBodies[0].rows) {
    searched.set(row, Array.from(row.querySelectorAll(".q"), (part) => part.textContent).join("\n").toLowerCase());
  }
  for (const field of document.querySelectorAll(".controls input, .controls select")) {
    field.addEventListener("input", () => { shownRows = pageRows; show(); });
  }
  for (const button of document.querySelectorAll(".more button")) {
    button.addEventListener("click", () => {
      shownRows = button.dataset.more === "all" ? Infinity : shownRows + Number(button.dataset.more);
      show();
    });
  }
  document.querySelector(".controls").hidden = false;
  show();
}
