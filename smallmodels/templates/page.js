"use strict";
// What a page can do besides being read: point at marks, sort and filter tables. Without it the page is whole.
(() => {
  const MISSING = "–";
  const FILTER_FROM = 5; // rows
  const MOST_SHOWN = 400; // characters of a name that is read out
  const UNITS = {
    ms: 1e-3, s: 1, min: 60, h: 3600, J: 1, Wh: 3600, kWh: 3.6e6, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, million: 1e6,
    billion: 1e9, day: 1, days: 1, months: 30.44, years: 365.25,
  };
  const NUMBER = /^(?:estimated )?(-?[\d,]*\.?\d+)(?:[\s\u00a0]*([A-Za-z]+))?(?:[\s\u00a0]+(\d+)[\s\u00a0]*(min|s)\b)?(?=$|[\s\u00a0%(–±,])/;
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const make = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  const text = (node) => node.textContent.trim();
  document.documentElement.classList.add("js");
  const status = make("p", { className: "unseen", role: "status" });
  document.body.append(status);

  // --- marks ---

  const tip = make("div", { className: "tip", hidden: true });
  tip.setAttribute("aria-hidden", "true"); // the mark itself is read out
  document.body.append(tip);
  let current = null;
  let leaving = 0;
  let pointed; // where the pointer met a mark that is wide

  const nameOf = (mark) => {
    const title = mark.querySelector(":scope > title");
    if (title) { // or the browser would show a second box
      mark.setAttribute("aria-label", title.textContent.slice(0, MOST_SHOWN));
      title.remove();
    }
    return mark.getAttribute("aria-label");
  };

  const rowsOf = (picture) => {
    if (!picture.rowsByName) {
      picture.rowsByName = new Map();
      for (const row of picture.querySelectorAll("tbody tr")) { // several, such as a model's under each way of counting
        const name = text(row.cells[0]);
        if (!picture.rowsByName.has(name)) picture.rowsByName.set(name, []);
        picture.rowsByName.get(name).push(row);
      }
    }
    return picture.rowsByName;
  };
  const marksOf = (picture) => {
    if (!picture.marksByRow) {
      picture.marksByRow = new Map();
      for (const mark of picture.querySelectorAll(".mark[data-row]")) {
        const row = mark.dataset.row.trim();
        if (!picture.marksByRow.has(row)) picture.marksByRow.set(row, []);
        picture.marksByRow.get(row).push(mark);
      }
    }
    return picture.marksByRow;
  };
  const light = (mark, on) => {
    const picture = mark.closest(".picture");
    const rows = picture && mark.dataset.row && rowsOf(picture).get(mark.dataset.row.trim());
    for (const row of rows || []) row.classList.toggle("lit", on);
    mark.classList.toggle("lit", on);
  };
  const hide = () => {
    clearTimeout(leaving);
    if (current) light(current, false);
    current = null;
    tip.hidden = true;
  };
  const show = (mark, x) => {
    clearTimeout(leaving);
    if (mark === current) return;
    hide();
    current = mark;
    light(mark, true);
    tip.textContent = nameOf(mark);
    tip.hidden = false;
    pointed = x;
    place();
  };
  const place = () => {
    const box = current.getBoundingClientRect();
    if (box.bottom < 0 || box.top > innerHeight) return hide();
    const centre = box.width > 60 && pointed !== undefined ? pointed : box.left + box.width / 2;
    const left = Math.min(Math.max(8, centre - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 6;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 6}px`;
  };
  const leave = () => {
    clearTimeout(leaving);
    leaving = setTimeout(() => { if (!current || document.activeElement !== current) hide(); }, 150);
  };
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest?.(".mark");
    if (mark) show(mark, event.clientX);
    else if (event.target === tip) clearTimeout(leaving); // the box may be pointed at, to read or to copy from it
    else if (current) leave();
  });
  document.addEventListener("focusin", (event) => {
    const mark = event.target.closest?.(".mark");
    if (mark) show(mark); else hide();
  });
  document.addEventListener("scroll", () => { if (current) place(); }, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const mark = event.target.closest?.(".mark");
    if (!mark || event.altKey || event.ctrlKey || event.metaKey) return;
    const marks = [...mark.closest("svg").querySelectorAll(".mark:not(.dim)")];
    const at = marks.indexOf(mark);
    const to = {
      ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: marks.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = marks[Math.min(Math.max(to, 0), marks.length - 1)];
    mark.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  for (const chart of document.querySelectorAll("svg.chart")) {
    chart.querySelectorAll(".mark").forEach((mark, i) => mark.setAttribute("tabindex", i ? "-1" : "0"));
  }
  document.addEventListener("mouseover", (event) => { // a row shows its signs
    const row = event.target.closest?.(".picture tbody tr");
    for (const mark of document.querySelectorAll(".mark.lit")) if (mark !== current) mark.classList.remove("lit");
    if (!row) return;
    for (const mark of marksOf(row.closest(".picture")).get(text(row.cells[0])) ?? []) mark.classList.add("lit");
  });

  // --- tables ---

  const valueOf = (shown) => {
    if (shown === "" || shown === MISSING) return null;
    if (shown.startsWith("less than")) return 0;
    const found = NUMBER.exec(shown);
    if (!found) return null;
    const value = Number(found[1].replaceAll(",", "")) * (UNITS[found[2]] ?? 1);
    return found[3] ? value + Number(found[3]) * UNITS[found[4]] : value;
  };

  const sortBy = (table, column, ascending) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const shown = rows.map((row) => text(row.cells[column]));
    const values = shown.map(valueOf);
    const known = shown.filter((s) => s !== "" && s !== MISSING).length;
    const numeric = column > 0 && known > 0 && values.filter((v) => v !== null).length >= 0.8 * known;
    const order = rows.map((_, i) => i);
    const missing = (i) => (numeric ? values[i] === null : shown[i] === "" || shown[i] === MISSING);
    const side = ascending ? 1 : -1;
    order.sort((a, b) => missing(a) - missing(b)
      || side * (numeric ? values[a] - values[b] : words.compare(shown[a], shown[b])) || a - b);
    body.append(...order.map((i) => rows[i]));
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    const name = text(table.tHead.rows[0].cells[column]);
    status.textContent = `Sorted by ${name}, ${ascending ? "ascending" : "descending"}.`;
  };

  const filterBy = (table, typed, count) => {
    const wanted = typed.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...table.tBodies[0].rows];
    const picture = table.closest(".picture");
    const marks = picture ? marksOf(picture) : new Map();
    let left = 0;
    for (const row of rows) {
      row.searched ??= row.textContent.toLowerCase();
      const fits = wanted.every((word) => row.searched.includes(word));
      row.hidden = !fits;
      left += fits;
    }
    for (const [name, found] of picture ? rowsOf(picture) : []) {
      const fits = found.some((row) => !row.hidden);
      for (const mark of marks.get(name) ?? []) mark.classList.toggle("dim", !fits);
    }
    count.textContent = wanted.length ? `${left} of ${rows.length} rows` : "";
    status.textContent = count.textContent;
    for (const chart of picture?.querySelectorAll("svg.chart") ?? []) { // the keyboard needs one way in
      const open = [...chart.querySelectorAll(".mark")];
      for (const mark of open) mark.setAttribute("tabindex", "-1");
      open.find((mark) => !mark.classList.contains("dim"))?.setAttribute("tabindex", "0");
    }
  };

  for (const table of document.querySelectorAll("main table")) {
    const rows = table.tBodies[0].rows.length;
    if (rows < 2) continue;
    const heads = [...table.tHead.rows[0].cells];
    const picker = make("select", {}, make("option", { value: "", textContent: "as written" }));
    heads.forEach((head, column) => {
      const name = text(head);
      const button = make("button", { type: "button", className: "sort" }, ...head.childNodes);
      button.addEventListener("click", () => sortBy(table, column, head.getAttribute("aria-sort") !== "ascending"));
      head.append(button);
      picker.append(make("option", { value: `${column} 1`, textContent: `${name}, ascending` }));
      picker.append(make("option", { value: `${column} 0`, textContent: `${name}, descending` }));
    });
    const written = [...table.tBodies[0].rows];
    picker.addEventListener("change", () => {
      if (!picker.value) return table.tBodies[0].append(...written);
      const [column, ascending] = picker.value.split(" ").map(Number);
      sortBy(table, column, ascending === 1);
    });
    const tools = make("div", { className: "tools" });
    tools.append(make("p", { className: "caption", textContent: text(table.caption) }));
    tools.firstChild.setAttribute("aria-hidden", "true"); // the table still has it
    table.caption.className = "unseen";
    if (rows >= FILTER_FROM) {
      const input = make("input", { type: "search", autocomplete: "off", spellcheck: false });
      const count = make("span", { className: "count" });
      input.addEventListener("input", () => filterBy(table, input.value, count));
      tools.append(count, make("label", {}, "Filter rows ", input));
    }
    tools.append(make("label", { className: "narrow" }, "Sort by ", picker));
    table.closest(".scroll").before(tools);
  }

  const fit = () => { // a table that fits needs no stop of the keyboard to be moved
    for (const scroll of document.querySelectorAll(".scroll")) {
      const moves = scroll.scrollWidth > scroll.clientWidth + 1 || scroll.scrollHeight > scroll.clientHeight + 1;
      if (moves) scroll.tabIndex = 0; else scroll.removeAttribute("tabindex");
    }
  };
  fit();
  addEventListener("resize", fit);

  const first = document.querySelector(".panels");
  if (first) {
    first.before(make("p", {
      className: "note hint",
      textContent: "Point at a sign, or reach it with Tab and go on with the arrow keys, to read its values. "
        + "The names of columns sort their table.",
    }));
  }
  addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });
})();
