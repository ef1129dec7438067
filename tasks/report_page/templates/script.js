"use strict";

// Without this script the page still shows everything; it adds the slider and the filter.

for (const section of document.querySelectorAll("[id$='-thresholds']")) {
  const slider = section.querySelector("input[type=range]");
  if (!slider) continue;
  const rows = [...section.querySelectorAll("details.source tbody tr")];
  const marker = section.querySelector("g.marker");
  const places = marker.dataset.x.split(" ");
  const show = () => {
    for (const shown of section.querySelectorAll("[data-column]"))
      shown.textContent = rows[slider.value].cells[shown.dataset.column].textContent;
    marker.setAttribute("transform", `translate(${places[slider.value]} 0)`);
    const [tau, jf] = section.querySelectorAll("[data-column]");
    slider.setAttribute("aria-valuetext", `tau ${tau.textContent}, J&F ${jf.textContent}`);
  };
  slider.addEventListener("input", show);
  slider.closest("[hidden]").hidden = false;
  show();
}

for (const form of document.querySelectorAll("form.filter")) {
  const section = form.closest("section");
  const [text, group, open, found] = ["input", "select", "button.open", ".found"].map((name) =>
    form.querySelector(name),
  );
  const videos = [...section.querySelectorAll("details.video")].map((element) => ({
    element,
    expressions: [...element.querySelectorAll("li.expression")].map((item) => ({
      item,
      words: `${element.querySelector(".video-id").textContent} ${item.querySelector(".text").textContent}`.toLowerCase(),
      groups: item.dataset.groups.split(" "),
      jf: parseFloat(item.dataset.jf),
    })),
  }));
  const total = videos.reduce((sum, video) => sum + video.expressions.length, 0);
  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const scores = [];
    let [expressions, shown] = [0, 0];
    for (const video of videos) {
      let here = 0;
      for (const { item, words: own, groups, jf } of video.expressions) {
        const fits =
          words.every((word) => own.includes(word)) && (!group.value || groups.includes(group.value));
        item.hidden = !fits;
        here += fits;
        if (fits && !Number.isNaN(jf)) scores.push(jf);
      }
      video.element.hidden = !here;
      expressions += here;
      shown += here > 0;
    }
    const mean = scores.reduce((sum, jf) => sum + jf, 0) / scores.length;
    found.textContent =
      `${expressions} of ${total} expressions, in ${shown} of ${videos.length} videos` +
      (scores.length ? `; mean J&F ${mean.toFixed(2)}` : "");
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  open.addEventListener("click", () => {
    const opened = open.getAttribute("aria-pressed") !== "true";
    open.setAttribute("aria-pressed", opened);
    open.textContent = opened ? "Close all" : "Open all";
    for (const { element } of videos) element.open = opened;
  });
  for (const link of section.parentElement.querySelectorAll("a[data-group]"))
    link.addEventListener("click", () => {
      const option = [...group.options].find((each) => each.dataset.group === link.dataset.group);
      text.value = "";
      group.value = option ? option.value : "";
      filter();
    });
  form.hidden = false;
  filter();
}

const openTarget = () => {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.hidden = false;
    target.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", openTarget);
openTarget();
