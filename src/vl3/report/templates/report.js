"use strict";
// The page is complete without this script, which only filters the sample predictions.
const wrongOnly = document.getElementById("wrong-only");
if (wrongOnly) {
  wrongOnly.closest("label").hidden = false;
  const apply = () => {
    for (const card of document.querySelectorAll(".prediction")) {
      card.hidden = wrongOnly.checked && card.dataset.correct === "yes";
    }
    for (const group of document.querySelectorAll(".prediction-group")) {
      const hidden = !group.querySelector(".prediction:not([hidden])");
      group.querySelector(".none-wrong").hidden = !hidden;
    }
  };
  wrongOnly.addEventListener("change", apply);
  apply();
}
