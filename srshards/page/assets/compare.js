"use strict";
// Comparisons of stacked images: draggable borders between the layers, and a dialog that magnifies them.
(() => {
  const ZOOMS = [1, 2, 3, 4, 6, 8, 12, 16]; // screen pixels per image pixel: integers, so that all pixels are equal

  // Set the position of each border, in percent of the width, at which CSS clips the layers.
  function place(stage) {
    const borders = [...stage.querySelectorAll(".border")];
    borders.forEach((border, number) => {
      stage.style.setProperty(`--cut${number + 1}`, border.value);
      border.setAttribute("aria-valuetext", `${Math.round(border.value)} percent from the left`);
    });
    const cuts = [0, ...borders.map((border) => Number(border.value)), 100];
    stage.querySelectorAll(".tag").forEach((tag, number) => {
      tag.hidden = ((cuts[number + 1] - cuts[number]) / 100) * stage.clientWidth < tag.offsetWidth + 12;
      tag.style.visibility = tag.hidden ? "hidden" : "";
      tag.hidden = false;
    });
  }

  // Borders keep their order: a moved border pushes the others.
  function move(stage, number, value) {
    const borders = [...stage.querySelectorAll(".border")];
    borders[number].value = value;
    const now = Number(borders[number].value);
    borders.forEach((border, other) => {
      if (other < number && Number(border.value) > now) border.value = now;
      if (other > number && Number(border.value) < now) border.value = now;
    });
    place(stage);
  }

  function wire(stage, anywhere) {
    const borders = [...stage.querySelectorAll(".border")];
    borders.forEach((border, number) => border.addEventListener("input", () => move(stage, number, border.value)));
    if (anywhere) {
      let held = null;
      const at = (event) => {
        const box = stage.getBoundingClientRect();
        return ((event.clientX - box.left) / box.width) * 100;
      };
      stage.addEventListener("pointerdown", (event) => {
        if (event.button !== 0 || event.target.matches(".border")) return;
        const distances = borders.map((border) => Math.abs(border.value - at(event)));
        held = distances.indexOf(Math.min(...distances));
        // Of two borders at the same position, take the one that can move there.
        if (held + 1 < borders.length && borders[held].value === borders[held + 1].value && at(event) > borders[held].value) held += 1;
        stage.setPointerCapture(event.pointerId);
        move(stage, held, at(event));
      });
      stage.addEventListener("pointermove", (event) => held !== null && move(stage, held, at(event)));
      for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (held = null));
    }
    new ResizeObserver(() => place(stage)).observe(stage);
    place(stage);
  }

  const all = () => [...document.querySelectorAll("main .comparison")].filter((one) => one.offsetParent !== null);
  const dialog = document.getElementById("magnifier");
  const view = dialog.querySelector(".view");
  let shown = null;
  let zoom = 4;

  function scale(next, keep = true) {
    const middle = [
      (view.scrollLeft + view.clientWidth / 2) / Math.max(view.scrollWidth, 1),
      (view.scrollTop + view.clientHeight / 2) / Math.max(view.scrollHeight, 1),
    ];
    zoom = next;
    view.style.setProperty("--zoom", zoom / window.devicePixelRatio);
    const output = dialog.querySelector("output");
    output.textContent = `${zoom}×`;
    output.title = `${zoom} × ${zoom} screen px for each image px`;
    dialog.querySelector('[data-do="out"]').disabled = zoom === ZOOMS[0];
    dialog.querySelector('[data-do="in"]').disabled = zoom === ZOOMS.at(-1);
    if (keep) {
      view.scrollLeft = middle[0] * view.scrollWidth - view.clientWidth / 2;
      view.scrollTop = middle[1] * view.scrollHeight - view.clientHeight / 2;
    }
    align();
  }

  // Align to screen pixels: the centre of the view may lie between them.
  function align() {
    const stage = view.querySelector(".stage");
    if (!stage) return;
    stage.style.left = stage.style.top = "0";
    const box = stage.getBoundingClientRect();
    const ratio = window.devicePixelRatio;
    const off = (edge) => Math.round(edge * ratio) / ratio - edge;
    stage.style.left = `${off(box.left)}px`;
    stage.style.top = `${off(box.top)}px`;
  }

  function show(figure) {
    shown = figure;
    const stage = figure.querySelector(".stage").cloneNode(true);
    figure.querySelectorAll(".border").forEach((border, number) => (stage.querySelectorAll(".border")[number].value = border.value));
    view.replaceChildren(stage);
    for (const name of ["--width", "--height"]) view.style.setProperty(name, figure.style.getPropertyValue(name));
    document.getElementById("magnifier-title").textContent = figure.dataset.title;
    const facts = figure.querySelector(".facts")?.cloneNode(true);
    if (facts) facts.hidden = false;
    dialog.querySelector("div.facts").replaceChildren(...(facts ? [facts] : []));
    if (!dialog.open) dialog.showModal();
    const size = ["--width", "--height"].map((name) => Number(figure.style.getPropertyValue(name)) / window.devicePixelRatio);
    figure.dispatchEvent(new Event("magnified")); // may add to the tools, and so reduce the view
    const { paddingLeft, paddingRight, paddingTop, paddingBottom } = getComputedStyle(view);
    const width = view.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
    const height = view.clientHeight - parseFloat(paddingTop) - parseFloat(paddingBottom);
    const fitting = ZOOMS.filter((one) => size[0] * one <= width && size[1] * one <= height);
    scale(fitting.at(-1) ?? 1, false);
    wire(stage, false);
  }

  function step(by) {
    const figures = all();
    const next = figures[figures.indexOf(shown) + by];
    if (next) show(next);
  }

  const actions = {
    previous: () => step(-1),
    next: () => step(1),
    out: () => scale(ZOOMS[Math.max(ZOOMS.indexOf(zoom) - 1, 0)]),
    in: () => scale(ZOOMS[Math.min(ZOOMS.indexOf(zoom) + 1, ZOOMS.length - 1)]),
    close: () => dialog.close(),
  };
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) actions[button.dataset.do]();
    else if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    const action = { "+": "in", "=": "in", "-": "out", PageUp: "previous", PageDown: "next" }[event.key];
    if (!action || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    actions[action]();
  });
  dialog.addEventListener("close", () => {
    const button = shown?.querySelector(".magnify");
    view.replaceChildren();
    button?.focus();
  });
  new ResizeObserver(align).observe(view);
  // Dragging outside the borders scrolls the view.
  let grip = null;
  view.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0 || event.target.matches(".border")) return;
    grip = [event.clientX + view.scrollLeft, event.clientY + view.scrollTop];
    view.setPointerCapture(event.pointerId);
  });
  view.addEventListener("pointermove", (event) => {
    if (grip) view.scrollTo(grip[0] - event.clientX, grip[1] - event.clientY);
  });
  for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => (grip = null));

  document.addEventListener("click", (event) => {
    const figure = event.target.closest(".magnify")?.closest(".comparison");
    if (figure) show(figure);
  });
  document.querySelectorAll("main .comparison .stage").forEach((stage) => wire(stage, true));
  document.documentElement.classList.add("scripted");
})();
