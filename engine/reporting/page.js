// A report's behaviour: tabs, sorted tables, the matrix by keyboard, videos that play, dialogs.
"use strict";
const { sets, tests } = JSON.parse(document.getElementById("data").textContent);
const sizes = JSON.parse(document.getElementById("sizes").textContent);
const STEP = 140; // milliseconds that a preview's frame is shown
const FEW = 6; // cards before "show more"
const calm = matchMedia("(prefers-reduced-motion: reduce)");

function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}
const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(0)} %`);

// which videos

function rowsOf(set, wanted) {
  return sets[set].videos.map((_, row) => row).filter(wanted);
}
function pair(a, b, kind) {
  const [first, second] = [tests[a], tests[b]];
  const asked = { both: [1, 1], a: [1, 0], b: [0, 1], neither: [0, 0] }[kind];
  return rowsOf(first.set, (row) => first.correct[row] === asked[0] && second.correct[row] === asked[1]);
}
function worst(test) {
  const rows = rowsOf(test.set, (row) => !test.correct[row] && test.label[row] !== null);
  return rows.sort((a, b) => test.label[a] - test.label[b]);
}
function uncertain(test) {
  const margin = (row) => test.top[row][0][1] - (test.top[row][1] || [0, 0])[1];
  const rows = rowsOf(test.set, (row) => test.top[row].length > 1);
  return rows.sort((a, b) => margin(a) - margin(b));
}

// a video

function clip(set, row, className) {
  const box = make("div", `clip ${className}`);
  const image = sets[set].images[row];
  const [width, height] = sizes[set][0] ? sizes[set] : [4, 3];
  box.style.aspectRatio = `${width} / ${height}`;
  if (!image) {
    box.classList.add("empty");
    box.textContent = "no picture";
    return box;
  }
  const [source, frames] = image;
  const picture = make("img");
  const time = make("div", "time");
  picture.src = source;
  picture.alt = "";
  picture.style.width = `${100 * frames}%`;
  let timer = 0;
  let frame = 0;
  const show = (number) => {
    frame = number % frames;
    picture.style.transform = `translateX(${(-100 * frame) / frames}%)`;
  };
  const still = () => {
    clearInterval(timer);
    timer = 0;
    time.style.width = "0";
    box.dataset.playing = "";
    show(Math.floor(frames / 2));
  };
  box.play = () => {
    if (timer || frames < 2 || calm.matches) return;
    show(0);
    box.dataset.playing = "yes";
    timer = setInterval(() => {
      if (!box.isConnected) return still();
      show(frame + 1);
      time.style.width = `${(100 * (frame + 1)) / frames}%`;
    }, STEP);
  };
  box.stop = still;
  still();
  box.append(picture, time);
  return box;
}

function card(set, row) {
  const { videos, labels, classes } = sets[set];
  const own = make("button", "card");
  const film = clip(set, row, "");
  const text = make("div", "text");
  text.append(make("span", "label", classes[labels[row]]));
  for (const place of sets[set].tests) {
    const test = tests[place];
    const answer = make("div", `answer ${test.correct[row] ? "right" : "wrong"}`);
    const said = test.predicted[row] < 0 ? "not scored" : classes[test.predicted[row]];
    const many = sets[set].tests.length > 1;
    answer.append(make("span", "", many ? `${test.short}: ${said}` : said));
    answer.append(make("span", "", test.top[row].length ? percent(test.top[row][0][1]) : ""));
    text.append(answer);
  }
  text.append(make("span", "video", videos[row]));
  own.append(film, text);
  own.title = videos[row];
  own.addEventListener("click", () => openVideo(set, row));
  if (film.play) {
    for (const begin of ["pointerenter", "focus"]) own.addEventListener(begin, film.play);
    for (const end of ["pointerleave", "blur"]) own.addEventListener(end, film.stop);
  }
  return own;
}

function showCards(place, set, rows, few) {
  const grid = make("div", "grid-cards");
  let shown = 0;
  const more = make("button", "more");
  const add = (number) => {
    const next = rows.slice(shown, shown + number);
    const cards = next.map((row) => card(set, row));
    grid.append(...cards);
    shown += next.length;
    more.textContent = `Show more (${rows.length - shown} left)`;
    more.hidden = shown >= rows.length;
    return cards;
  };
  more.addEventListener("click", () => add(24)[0].focus());
  add(few);
  place.append(grid, more);
  if (!rows.length) place.append(make("p", "none", "There are none."));
}

// dialogs

function openList(title, set, rows) {
  const dialog = document.getElementById("list");
  dialog.querySelector("h2").textContent = title;
  const body = dialog.querySelector(".body");
  body.replaceChildren();
  showCards(body, set, rows, 24);
  dialog.showModal();
}

function openVideo(set, row) {
  const { videos, labels, classes, images } = sets[set];
  const dialog = document.getElementById("detail");
  dialog.querySelector("h2").textContent = `${classes[labels[row]]} · ${videos[row]}`;
  const body = dialog.querySelector(".body");
  body.replaceChildren();
  const film = clip(set, row, "large");
  body.append(film);
  if (images[row] && images[row][1] > 1) {
    const strip = make("div", "strip");
    const picture = make("img");
    [picture.src, picture.alt] = [images[row][0], `${images[row][1]} frames of the video`];
    strip.tabIndex = 0;
    strip.append(picture);
    body.append(strip);
  }
  const answers = make("div", "answers");
  for (const place of sets[set].tests) {
    const test = tests[place];
    const part = make("div");
    part.append(make("h3", test.kind, test.short));
    if (!test.top[row].length) part.append(make("p", "bad", test.reasons[videos[row]] || "not scored"));
    for (const [label, share] of test.top[row]) {
      const line = make("div", label === labels[row] ? "row own" : "row");
      const bar = make("i");
      bar.style.width = `${100 * share}%`;
      line.append(make("span", "", classes[label]), make("span", "", `${(100 * share).toFixed(1)} %`), bar);
      part.append(line);
    }
    answers.append(part);
  }
  body.append(answers);
  dialog.showModal();
  if (film.play) film.play();
}

document.addEventListener("click", (event) => {
  const from = event.target.closest("[data-open]");
  if (event.target.localName === "dialog") event.target.close(); // beside it
  if (!from) return;
  const { open, label, predicted, a, b, kind } = from.dataset;
  if (open === "pair") {
    const [first, second] = [tests[a].name, tests[b].name];
    const what = { both: `${first} and ${second}`, a: `only ${first}`, b: `only ${second}`, neither: "neither" };
    const rows = pair(a, b, kind);
    return openList(`${rows.length} videos: correct in ${what[kind]}`, tests[a].set, rows);
  }
  const test = tests[from.dataset.test];
  const { labels, classes } = sets[test.set];
  const anything = open === "class";
  const rows = rowsOf(test.set, (row) => labels[row] === +label && (anything || test.predicted[row] === +predicted));
  const as = anything ? "" : `, predicted “${classes[predicted]}”`;
  openList(`${rows.length} of “${classes[label]}”${as} (${test.name})`, test.set, rows);
});
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("close", () => dialog.querySelector(".body").replaceChildren());
}

// cards on the page

function fill(place) {
  const { cards, test, a, b, kind, title } = place.dataset;
  const set = tests[cards === "pair" ? a : test].set;
  const rows = cards === "pair" ? pair(a, b, kind) : (cards === "worst" ? worst : uncertain)(tests[test]);
  if (title) place.append(make("h5", rows.length ? (kind === "b" ? "good" : "bad") : "none", `${rows.length} ${title}`));
  if (!title || rows.length) showCards(place, set, rows, title ? 3 : FEW);
}

// tabs

const tabs = [...document.querySelectorAll("[role=tab]")];
function choose(tab) {
  for (const other of tabs) {
    const panel = document.getElementById(other.getAttribute("aria-controls"));
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    panel.hidden = !chosen;
    if (chosen) panel.querySelectorAll("[data-cards]:empty").forEach(fill);
  }
}
tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(place + step + tabs.length) % tabs.length];
    choose(next);
    next.focus();
  });
});
document.querySelectorAll("#pairs [data-cards]").forEach(fill);
choose(tabs[tabs.length - 1]);

// the matrix: one stop of the Tab key, arrows inside

for (const matrix of document.querySelectorAll(".matrix")) {
  const cells = [...matrix.querySelectorAll("tbody button")];
  const spot = (cell) => [cell.closest("tr").rowIndex, cell.parentElement.cellIndex];
  if (cells.length) cells[0].tabIndex = 0;
  matrix.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step || !cells.includes(event.target)) return;
    event.preventDefault();
    const [row, column] = spot(event.target);
    const away = (cell) => {
      const [r, c] = spot(cell);
      const along = (r - row) * step[0] + (c - column) * step[1];
      const across = Math.abs((r - row) * step[1]) + Math.abs((c - column) * step[0]);
      return along > 0 ? along + 3 * across : Infinity;
    };
    const next = cells.reduce((best, cell) => (away(cell) < away(best) ? cell : best));
    if (away(next) === Infinity) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

// sorted tables

for (const table of document.querySelectorAll(".sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const number = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return (number ? x - y : x.localeCompare(y)) * (falling ? -1 : 1);
      });
      body.append(...rows);
    });
  });
}
