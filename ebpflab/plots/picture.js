for (const figure of document.querySelectorAll("figure.ebpflab-picture:not([data-ready])")) {
  figure.dataset.ready = "";
  const spots = [...figure.querySelectorAll("rect")];
  const told = figure.querySelector("output");
  const place = figure.querySelector("div");
  const data = JSON.parse(figure.querySelector("script[type='application/json']")?.textContent ?? "null");
  const words = (spot) => spot.querySelector("title").textContent;
  let chosen = null;

  const element = (name, text, children = []) => {
    const made = document.createElement(name);
    if (text !== null) made.textContent = text;
    made.append(...children);
    return made;
  };
  const showRows = (spot) => {
    const { rows, of } = data.spots[spots.indexOf(spot)];
    const all = `${of.toLocaleString("en")} ${of === 1 ? "row" : "rows"}`;
    if (!rows.length) told.textContent += `. Its ${all} did not fit into this page.`;
    else if (rows.length < of) told.textContent += `: the first ${rows.length} of ${all}.`;
    const line = (cells, kind) => element("tr", null, cells.map((cell) => element(kind, cell)));
    const body = rows.map((row) => line(data.rows[row], "td"));
    place.replaceChildren(element("table", null, [
      element("thead", null, [line(data.columns, "th")]), element("tbody", null, body),
    ]));
  };
  const choose = (spot) => {
    chosen?.classList.remove("chosen");
    chosen = spot;
    spot.classList.add("chosen");
    told.textContent = words(spot);
    if (data) showRows(spot);
  };

  for (const spot of spots) {
    spot.setAttribute("aria-label", words(spot));
    if (spots.length <= 100 || data) {
      spot.setAttribute("tabindex", "0");
      spot.setAttribute("role", "button");
    }
    spot.addEventListener("mouseenter", () => { if (!chosen) told.textContent = words(spot); });
    spot.addEventListener("click", () => choose(spot));
    spot.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation(); // Enter would begin to edit the cell
      choose(spot);
    });
  }
}
