"use strict";
// Ticked photos, synchronized over all lists, and the exclude file made from them.
(() => {
  const lines = JSON.parse(document.getElementById("exclude-lines").textContent);
  const boxes = [...document.querySelectorAll("input[data-photo]")];
  const basket = document.querySelector(".basket");
  const text = basket.querySelector("textarea");
  const chosen = new Set();
  const head = `# Photos to exclude: ${document.querySelector("pre.command").textContent}\n`;

  function show() {
    for (const box of boxes) box.checked = chosen.has(box.dataset.photo);
    basket.querySelector("output").textContent = `${chosen.size} ${chosen.size === 1 ? "photo" : "photos"} to exclude`;
    for (const button of basket.querySelectorAll("button")) button.disabled = chosen.size === 0;
    text.value = chosen.size ? head + [...chosen].map((photo) => lines[photo] + "\n").sort().join("") : "";
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
    const button = event.target.closest(".all-but-first");
    if (!button) return;
    const members = [...button.closest("fieldset").querySelectorAll(".photo")];
    members.forEach((member, number) => {
      const box = member.querySelector("input[data-photo]"); // photos of --val have none
      if (box) choose(box.dataset.photo, number > 0);
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
  basket.addEventListener("click", (event) => {
    const button = event.target.closest("[data-list]");
    if (button) actions[button.dataset.list](button);
  });
  show(); // because browsers may restore ticked boxes when a page is reloaded
})();
