"use strict";
// The two versions that each comparison shows: chosen for all images, for one, or in the magnifier.
(() => {
  const SIDES = ["left", "right"];
  const scenes = [...document.querySelectorAll(".scene")];
  const magnifier = document.getElementById("magnifier");
  let magnified = null; // the scene in the magnifier
  const pairs = new Map(); // the versions shown, by box of two selects

  const selects = (box) => SIDES.map((side) => box.querySelector(`[name=${side}]`));
  const chosen = (box) => selects(box).map((select) => select.value);

  function set(box, pair) {
    selects(box).forEach((select, number) => (select.value = pair[number]));
    pairs.set(box, pair);
  }

  function listen(box, apply) {
    pairs.set(box, chosen(box));
    selects(box).forEach((select, number) =>
      select.addEventListener("change", () => {
        const pair = chosen(box);
        if (pair[0] === pair[1]) pair[1 - number] = pairs.get(box)[number]; // exchange them: equal ones compare nothing
        set(box, pair);
        apply(pair);
      }),
    );
  }

  function fill(stage, scene, pair) {
    const sources = [...scene.querySelectorAll(".versions img")];
    stage.querySelectorAll(".layer").forEach((layer, number) => {
      const source = sources.find((one) => one.dataset.version === pair[number]);
      const image = layer.querySelector("img");
      image.src = source.src;
      image.alt = source.alt;
      layer.querySelector(".tag").textContent = pair[number];
    });
    const border = stage.querySelector(".border");
    border.setAttribute("aria-label", `Border between ${pair.join(" and ")}: ${scene.getAttribute("aria-label")}`);
    border.dispatchEvent(new Event("input")); // hides tags that no longer fit
  }

  function show(scene, pair) {
    set(scene.querySelector(".pair"), pair);
    fill(scene.querySelector(".stage"), scene, pair);
    if (scene !== magnified || !magnifier.open) return;
    set(inMagnifier, pair);
    fill(magnifier.querySelector(".stage"), scene, pair);
  }

  const everywhere = document.getElementById("pair");
  const inMagnifier = document.createElement("div");
  inMagnifier.className = "pair";
  inMagnifier.append(...everywhere.cloneNode(true).querySelectorAll("label"));
  magnifier.querySelector(".tools").prepend(inMagnifier);
  listen(inMagnifier, (pair) => show(magnified, pair));
  listen(everywhere, (pair) => scenes.forEach((scene) => show(scene, pair)));
  everywhere.addEventListener("submit", (event) => event.preventDefault());
  for (const scene of scenes) {
    const box = scene.querySelector(".pair");
    listen(box, (pair) => show(scene, pair));
    scene.querySelector(".comparison").addEventListener("magnified", () => {
      magnified = scene;
      show(scene, chosen(box));
    });
    show(scene, chosen(box));
  }
})();
