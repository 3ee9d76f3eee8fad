"use strict";
// Draws the specification that each plot of the page holds.
window.plotsDrawn = Promise.all(
  Array.from(document.querySelectorAll(".drawing"), async (place) => {
    const spec = JSON.parse(place.querySelector("script").textContent);
    const drawing = document.createElement("div");
    place.append(drawing);
    const { view } = await vegaEmbed(drawing, spec, { renderer: "svg", actions: false, tooltip: { theme: "page" } });
    place.dataset.drawn = "yes";
    return view;
  }),
);
