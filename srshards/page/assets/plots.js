"use strict";
// Draw each plot of the page from its embedded specification.
window.plotsDrawn = Promise.all(
  Array.from(document.querySelectorAll(".drawing"), async (container) => {
    const spec = JSON.parse(container.querySelector("script").textContent);
    const drawing = document.createElement("div");
    container.append(drawing);
    // On touch screens, show tooltips as for a mouse, and update them while the finger moves sideways.
    drawing.addEventListener("pointerdown", (event) => {
      if (!event.target.hasPointerCapture(event.pointerId)) return;
      event.target.releasePointerCapture(event.pointerId);
      event.target.dispatchEvent(new PointerEvent("pointermove", event));
    });
    const { view } = await vegaEmbed(drawing, spec, { renderer: "svg", actions: false, tooltip: { theme: "page" } });
    container.dataset.drawn = "yes";
    return view;
  }),
);

// Keep the tooltip inside the window: one with many lines fits neither above nor below the pointer.
window.addEventListener("pointermove", () => {
  const tooltip = document.getElementById("vg-tooltip-element");
  if (!tooltip?.classList.contains("visible")) return;
  const { left, top, width, height } = tooltip.getBoundingClientRect();
  tooltip.style.left = `${Math.max(0, Math.min(left, innerWidth - width))}px`;
  tooltip.style.top = `${Math.max(0, Math.min(top, innerHeight - height))}px`;
});

// On touch screens a tooltip stays when the finger is lifted: hide it on scrolling or the next touch.
for (const kind of ["scroll", "pointerdown"]) {
  window.addEventListener(kind, () => document.getElementById("vg-tooltip-element")?.classList.remove("visible"), true);
}
