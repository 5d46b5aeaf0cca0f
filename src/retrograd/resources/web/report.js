// Curves and the filter of the pages about runs. Without this script the page still has all of its text.
"use strict";
(() => {
  let plots = [];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function drawCharts() {
    const place = document.getElementById("charts");
    const source = document.getElementById("curve-data");
    if (!place || !source) return;
    plots.forEach((plot) => plot.destroy());
    plots = [];
    place.replaceChildren();
    for (const chart of JSON.parse(source.textContent)) {
      const figure = document.createElement("figure");
      figure.className = "chart";
      const caption = document.createElement("figcaption");
      caption.textContent = chart.unit ? `${chart.title}, ${chart.unit}` : chart.title;
      figure.append(caption);
      place.append(figure);
      const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
      const lines = chart.series.map((series, number) => ({
        label: series.name, stroke: colour(`--series-${(number % 5) + 1}`), width: 2, spanGaps: true,
        dash: number >= 5 ? [4, 4] : undefined, points: { show: series.steps.length < 20, size: 5 },
      }));
      const options = {
        width: figure.clientWidth, height: 200, scales: { x: { time: false } },
        axes: [{ ...axis, size: 30 }, { ...axis, size: 55, values: (_, ticks) => ticks.map((tick) => (tick !== 0 && Math.abs(tick) < 1e-3 ? tick.toExponential(0) : `${Number(tick.toPrecision(3))}`)) }], series: [{ label: "step" }, ...lines],
        cursor: { drag: { x: true, y: false } },
      };
      const data = uPlot.join(chart.series.map((series) => [series.steps, series.values]));
      plots.push(new uPlot(options, data, figure));
    }
  }

  function addFilter() {
    const form = document.getElementById("filter");
    if (!form) return;
    const examples = [...document.querySelectorAll("#examples .example")];
    const texts = examples.map((one) => one.textContent.toLocaleLowerCase());
    const text = document.getElementById("filter-text");
    const gold = document.getElementById("filter-gold");
    const wrong = document.getElementById("filter-wrong");
    const count = document.getElementById("filter-count");
    for (const label of [...new Set(examples.map((one) => one.dataset.gold))].sort()) {
      const option = document.createElement("option");
      option.value = label;
      option.textContent = label.length > 60 ? `${label.slice(0, 59)}…` : label;
      gold.append(option);
    }
    const more = document.getElementById("show-more");
    const few = 12;
    let most = few;
    const update = () => {
      const sought = text.value.trim().toLocaleLowerCase();
      let fitting = 0;
      examples.forEach((one, place) => {
        const fits = texts[place].includes(sought) && (!gold.value || one.dataset.gold === gold.value)
          && !(wrong && wrong.checked && !("wrong" in one.dataset));
        fitting += fits;
        one.hidden = !fits || fitting > most;
      });
      count.textContent = `${fitting} of ${examples.length} fit, ${Math.min(fitting, most)} shown`;
      more.hidden = fitting <= most;
    };
    form.addEventListener("input", () => { most = few; update(); });
    more.addEventListener("click", () => { most *= 4; update(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    update();
  }

  // A page of training that goes on is loaded again, unless somebody is using its filter or wants it to stay.
  function reloadLater() {
    const place = document.querySelector("[data-reload]");
    if (!place) return;
    const stay = document.getElementById("stay");
    const filter = document.getElementById("filter");
    stay.parentElement.hidden = false;
    setInterval(() => {
      const isUsed = filter && [...filter.elements].some((one) => (one.type === "checkbox" ? one.checked : one.tagName !== "OUTPUT" && one.value));
      if (!stay.checked && !isUsed && !document.activeElement?.closest("#filter")) location.reload();
    }, 1000 * Number(place.dataset.reload));
  }

  for (const details of document.querySelectorAll("details.fallback")) details.open = false;
  drawCharts();
  addFilter();
  reloadLater();
  let width = window.innerWidth;
  let waiting;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawCharts, 150);
  });
  // A page that is dark on the screen is light on paper.
  for (const look of ["(prefers-color-scheme: dark)", "print"]) matchMedia(look).addEventListener("change", drawCharts);
})();
