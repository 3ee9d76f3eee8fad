"use strict";
// Controls of the runs page: the selection of runs and steps in the plots, and the step slider of the previews.
(() => {
  const controls = document.getElementById("controls");
  controls?.addEventListener("submit", (event) => event.preventDefault());
  controls?.addEventListener("change", async () => {
    const hidden = [...controls.querySelectorAll("[name=run]:not(:checked)")].map((box) => Number(box.value));
    const first = controls.elements.part.value * controls.dataset.maxStep;
    for (const view of await window.plotsDrawn) await view.signal("hidden", hidden).signal("first", first).runAsync();
    controls.dataset.applied = JSON.stringify([hidden, first]);
  });

  const shots = JSON.parse(document.getElementById("shots").textContent);
  const figures = Object.keys(shots).map((id) => document.getElementById(id));
  for (const scene of document.querySelectorAll(".scene")) {
    const [first, ...others] = scene.querySelectorAll(".comparison");
    for (const other of others) for (const layer of [0, 2]) image(other, layer).src = image(first, layer).src;
  }
  for (const figure of figures) {
    figure.dataset.scene = figure.closest(".scene").querySelector("h3").textContent;
    shots[figure.id].at(-1)[2] = image(figure, 1).src;
  }

  function image(figure, layer) {
    return figure.querySelectorAll(".layer img")[layer];
  }

  // Each figure shows its run's last shot up to that step, or else its first shot.
  function show(step) {
    for (const figure of figures) {
      const [at, caption, uri] = shots[figure.id].findLast(([one]) => one <= step) ?? shots[figure.id][0];
      const run = figure.querySelector(".name").textContent;
      if (image(figure, 1).src !== uri) image(figure, 1).src = uri;
      figure.querySelector("figcaption > span:not(.name)").textContent = caption;
      figure.dataset.step = at;
      figure.dataset.title = `${figure.dataset.scene}, ${run}, step ${at.toLocaleString("en")}`;
    }
  }

  const slider = document.getElementById("step");
  const stops = slider?.dataset.stops.split(" ").map(Number);
  const update = () => {
    const step = stops[slider.value];
    const text = step.toLocaleString("en");
    document.querySelector(".steps output").textContent = text;
    slider.setAttribute("aria-valuetext", `step ${text}`);
    show(step);
  };
  slider?.addEventListener("input", update);
  if (slider) update();
  else show(Infinity);
})();
