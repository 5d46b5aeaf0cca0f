// The graph of the page: filters, search, and the evidence of a line. Without this script the table has all of it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("graph-data").textContent);
  if (!data.edges.length) return;
  const byId = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const details = document.querySelector("details.fallback");
  const rows = [...document.querySelectorAll("#triples tbody tr")];
  const names = data.nodes.map(([name]) => name.toLocaleLowerCase());
  details.open = false;
  byId("filter").hidden = false;
  byId("view").hidden = false;

  const size = data.edges.length > 500 ? 3 : 1;  // seen from further away
  const style = () => [
    { selector: "node", style: {
      label: "data(name)", color: colour("--text"), "font-size": 12 * size, "min-zoomed-font-size": 8,
      width: 14 * size, height: 14 * size,
      "background-color": colour("--accent"), "text-wrap": "ellipsis", "text-max-width": 120, "text-valign": "bottom",
      "text-margin-y": 3 } },
    { selector: "edge", style: {
      width: 2 * size, "curve-style": "bezier", "control-point-step-size": data.edges.length > 500 ? 8 : 30, "target-arrow-shape": "triangle", label: "data(relation)", "font-size": 9 * size,
      "min-zoomed-font-size": 9, color: colour("--quiet"), "text-rotation": "autorotate", "text-margin-y": -6,
      } },
    ...[1, 2, 3, 4, 5].map((number) => ({ selector: `edge[series = ${number}]`, style: {
      "line-color": colour(`--series-${number}`), "target-arrow-color": colour(`--series-${number}`) } })),
    { selector: ".left-out", style: { display: "none" } },
    { selector: "node.sought", style: { "background-color": colour("--bad"), width: 20 * size, height: 20 * size } },
    { selector: "edge:selected", style: { width: 5 * size } },
  ];
  // The lines of a relation have one of five colours; the relation's name stands on the line.
  const graph = cytoscape({
    container: byId("graph"),
    elements: [
      ...data.nodes.map(([name, , x, y], number) => (
        { group: "nodes", data: { id: `n${number}`, name, number }, position: { x, y } })),
      ...data.edges.map(([head, tail, relation], number) => (
        { group: "edges", data: { id: `e${number}`, source: `n${head}`, target: `n${tail}`, number,
          series: (relation % 5) + 1, relation: data.relations[relation] } })),
    ],
    style: style(), layout: { name: "preset" }, minZoom: 0.02, maxZoom: 4, hideEdgesOnViewport: data.edges.length > 1000,
  });

  function showEvidence(number) {
    const [head, relation, tail, score, sentence, neighbours] = rows[number].cells;
    const place = byId("evidence");
    const title = document.createElement("h2");
    title.textContent = `${data.nodes[data.edges[number][0]][0]} — ${relation.textContent} → ${data.nodes[data.edges[number][1]][0]}`;
    const certainty = document.createElement("p");
    certainty.textContent = `Score ${score.textContent}`;
    const text = document.createElement("p");
    text.className = "sentence";
    text.append(...[...sentence.childNodes].map((node) => node.cloneNode(true)));
    const heading = document.createElement("h3");
    heading.textContent = neighbours.children.length ? "Neighbours that were read" : "No neighbour was read";
    place.replaceChildren(title, certainty, text, heading, ...[...neighbours.childNodes].map((node) => node.cloneNode(true)));
    graph.edges().unselect();
    graph.$id(`e${number}`).select();
  }

  let chosen = null;  // the entity that was clicked: it alone is shown, not all whose names hold its name

  function update() {
    const sought = byId("entity").value.trim().toLocaleLowerCase();
    const relation = byId("relation").value;
    const least = Number(byId("score").value);
    byId("score-value").textContent = least.toFixed(2);
    const found = new Set();
    if (chosen !== null) found.add(chosen);
    else if (sought) names.forEach((name, number) => { if (name.includes(sought)) found.add(number); });
    const shown = new Set();
    let count = 0;
    graph.batch(() => {
      data.edges.forEach(([head, tail, own, score], number) => {
        const fits = (!sought || found.has(head) || found.has(tail)) && (relation === "" || own === Number(relation))
          && score >= least;
        graph.$id(`e${number}`).toggleClass("left-out", !fits);
        rows[number].hidden = !fits;
        if (fits) { count += 1; shown.add(head); shown.add(tail); }
      });
      data.nodes.forEach((_, number) => {
        graph.$id(`n${number}`).toggleClass("left-out", !shown.has(number)).toggleClass("sought", found.has(number));
      });
    });
    byId("count").textContent = `${count} of ${data.edges.length} triples`;
    return found;
  }

  function fit() {
    graph.fit(graph.elements().not(".left-out"), 30);
    if (graph.zoom() > 1.5) { graph.zoom(1.5); graph.center(graph.elements().not(".left-out")); }
  }

  rows.forEach((row, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Show";
    button.setAttribute("aria-label", `Show the evidence of triple ${number + 1}`);
    button.addEventListener("click", () => {
      showEvidence(number);
      byId("view").scrollIntoView({ block: "start" });
    });
    row.cells[0].prepend(button);
  });
  graph.on("tap", "edge", (event) => showEvidence(event.target.data("number")));
  graph.on("tap", "node", (event) => {
    byId("entity").value = event.target.data("name");
    chosen = event.target.data("number");
    update();
    fit();
  });
  byId("entity").addEventListener("input", () => { chosen = null; });
  byId("filter").addEventListener("input", () => { update(); if (byId("entity").value) fit(); });
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("fit").addEventListener("click", () => {
    byId("filter").reset();
    chosen = null;
    update();
    fit();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => graph.style(style()));
  update();
  fit();
})();
