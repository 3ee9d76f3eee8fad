"use strict";
// Ticked photos, synchronized over all lists, and the exclude file made from them.
(() => {
  const lines = JSON.parse(document.getElementById("exclude-lines").textContent);
  const boxes = [...document.querySelectorAll("input[data-photo]")];
  const basket = document.querySelector(".basket");
  const text = basket.querySelector("textarea");
  const chosen = new Set();
  const command = document.querySelector("pre.command").textContent;
  const head = `# Photos to exclude: ${command.replaceAll("\n", "\n# ")}\n`;

  // Lists of which only the first row is shown, until their buttons are pressed.
  const folds = [...document.querySelectorAll("button.fold")].map((button) => {
    const list = document.getElementById(button.getAttribute("aria-controls"));
    return { button, list, items: [...list.children], open: false };
  });

  function fold(one) {
    for (const item of one.items) item.hidden = false;
    const top = one.items[0]?.offsetTop;
    const below = one.items.filter((item) => item.offsetTop > top);
    one.button.hidden = below.length === 0;
    for (const item of below) item.hidden = !one.open;
    describe(one);
  }

  function describe({ button, list, items, open }) {
    const ticked = new Set([...list.querySelectorAll("input:checked")].map((box) => box.dataset.photo)).size;
    button.setAttribute("aria-expanded", open);
    button.querySelector(".action").textContent = open ? "Show one row" : `Show all ${items.length}`;
    button.querySelector(".ticks").textContent = ticked ? ` (${ticked} ticked)` : "";
  }

  document.addEventListener("click", (event) => {
    const one = folds.find(({ button }) => button.contains(event.target));
    if (!one) return;
    one.open = !one.open;
    fold(one);
  });
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (entry.contentRect.width === width) return; // only the height has changed
    width = entry.contentRect.width;
    folds.forEach(fold);
  }).observe(document.querySelector("main"));

  function show() {
    for (const box of boxes) box.checked = chosen.has(box.dataset.photo);
    basket.querySelector("output").textContent = `${chosen.size} ${chosen.size === 1 ? "photo" : "photos"} to exclude`;
    for (const button of basket.querySelectorAll("button")) button.disabled = chosen.size === 0;
    text.value = chosen.size ? head + [...chosen].map((photo) => lines[photo] + "\n").sort().join("") : "";
    folds.forEach(describe);
  }

  function choose(photo, yes) {
    if (yes) chosen.add(photo);
    else chosen.delete(photo);
  }

  document.addEventListener("change", (event) => {
    if (!event.target.matches("input[data-photo]")) return;
    choose(event.target.dataset.photo, event.target.checked);
    show();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-ticks]");
    if (!button) return;
    const which = button.dataset.ticks;
    const members = [...button.closest("fieldset").querySelectorAll(".photo")];
    members.forEach((member, number) => {
      const box = member.querySelector("input[data-photo]"); // photos of --val have none
      if (box) choose(box.dataset.photo, which === "rest" ? number > 0 : member.dataset.split === which);
    });
    show();
  });

  const actions = {
    save() {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text.value], { type: "text/plain" }));
      link.download = "exclude.txt";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    },
    async copy(button) {
      try {
        await navigator.clipboard.writeText(text.value);
        button.textContent = "Copied";
      } catch {
        // No permission to write to the clipboard: select the text for Ctrl+C.
        basket.querySelector("details").open = true;
        text.focus();
        text.select();
        button.textContent = "Selected: Ctrl+C";
      }
      setTimeout(() => (button.textContent = "Copy"), 3000);
    },
    clear() {
      chosen.clear();
      show();
    },
  };
  document.querySelector(".copy-command").addEventListener("click", async ({ currentTarget }) => {
    const label = currentTarget.firstChild;
    try {
      await navigator.clipboard.writeText(command);
      label.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(document.querySelector("pre.command")); // for Ctrl+C
      label.textContent = "Selected: Ctrl+C";
    }
    setTimeout(() => (label.textContent = "Copy"), 3000);
  });
  basket.addEventListener("click", (event) => {
    const button = event.target.closest("[data-list]");
    if (button) actions[button.dataset.list](button);
  });
  show(); // because browsers may restore ticked boxes when a page is reloaded
})();
