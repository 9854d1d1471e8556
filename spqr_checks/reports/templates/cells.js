"use strict";
// Sorting and filtering of the table of cells; without this script the whole table is there.
(() => {
  const table = document.querySelector("table.cells");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const shown = (row, column) => row.cells[column].textContent.trim();

  const keyOf = (row, column) => {
    const number = row.cells[column].dataset.n;
    if (number === undefined) return shown(row, column);
    return number === "" ? -Infinity : Number(number);
  };
  const sort = (column, down) => {
    const sign = down ? -1 : 1;
    const keyed = rows.map((row) => [keyOf(row, column), row]);
    keyed.sort(([a], [b]) =>
      sign * (typeof a === "number" ? (a === b ? 0 : a < b ? -1 : 1) : a.localeCompare(b)));
    body.append(...keyed.map(([, row]) => row));
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () =>
      sort(column, head.getAttribute("aria-sort") === "ascending"));
    head.append(button);
  });

  const bar = document.getElementById("cell-filters");
  const fields = [];
  const add = (label, control) => {
    const wrapped = document.createElement("label");
    wrapped.append(label, control);
    bar.append(wrapped);
    control.addEventListener("input", filter);
    return control;
  };
  const words = document.createElement("input");
  words.type = "search";
  add("Words", words);
  heads.forEach((head, column) => {
    if (!head.dataset.filter) return;
    const values = [...new Set(rows.map((row) => shown(row, column)))].sort();
    if (values.length < 2) return;
    const select = document.createElement("select");
    select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
    fields.push([column, add(head.textContent, select)]);
  });
  const count = document.createElement("p");
  count.setAttribute("role", "status");
  bar.append(count);
  function filter() {
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = asked.every((word) => text.includes(word)) &&
        fields.every(([column, select]) => !select.value || shown(row, column) === select.value);
      row.hidden = !fits;
      left += fits;
    }
    count.textContent = `${left} of ${rows.length} cells`;
  }
  filter();
})();
