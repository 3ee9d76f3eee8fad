"use strict";
// Draws the specification that each plot of the page holds.
window.plotsDrawn = Promise.all(
  Array.from(document.querySelectorAll(".drawing"), async (place) => {
    const spec = JSON.parse(place.querySelector("script").textContent);
    const drawing = document.createElement("div");
    place.append(drawing);
    // A finger shows figures as a pointer does, and others when it is moved sideways.
    drawing.addEventListener("pointerdown", (event) => {
      if (!event.target.hasPointerCapture(event.pointerId)) return;
      event.target.releasePointerCapture(event.pointerId);
      event.target.dispatchEvent(new PointerEvent("pointermove", event));
    });
    const { view } = await vegaEmbed(drawing, spec, { renderer: "svg", actions: false, tooltip: { theme: "page" } });
    place.dataset.drawn = "yes";
    return view;
  }),
);

// A tooltip of many lines has room neither above nor below the pointer.
window.addEventListener("pointermove", () => {
  const tooltip = document.getElementById("vg-tooltip-element");
  if (!tooltip?.classList.contains("visible")) return;
  const { left, top, width, height } = tooltip.getBoundingClientRect();
  tooltip.style.left = `${Math.max(0, Math.min(left, innerWidth - width))}px`;
  tooltip.style.top = `${Math.max(0, Math.min(top, innerHeight - height))}px`;
});

// What a finger has shown stays when it is lifted, and would stand over other parts of the page.
for (const kind of ["scroll", "pointerdown"]) {
  window.addEventListener(kind, () => document.getElementById("vg-tooltip-element")?.classList.remove("visible"), true);
}
