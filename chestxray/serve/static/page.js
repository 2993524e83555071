// The page: takes images, sends each to /api/predict, and shows what comes back.
import { failed, shown } from "./result.js";
import { save } from "./download.js";

const AT_ONCE = 2;
const PATIENCE = 5;
const maxUpload = Number(document.body.dataset.maxUpload);
const find = (id) => document.getElementById(id);
const status = find("status");
const list = find("list");
const results = find("results");

let models = null;
let entries = [];
let waiting = [];
let running = 0;
let round = new AbortController();

function ask(items) {
  if (!items.length) return;
  for (const item of items) {
    const entry = { number: entries.length + 1, name: item.name, node: document.createElement("article"), told: null };
    entry.node.setAttribute("aria-busy", "true");
    entry.node.append(heading(entry), paragraph("Waiting …", "soft"));
    list.append(entry.node);
    entries.push(entry);
    waiting.push({ entry, item });
  }
  results.hidden = false;
  speak();
  next();
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    const job = waiting.shift();
    const mine = round;
    answer(job.item, mine.signal)
      .catch((error) => (mine.signal.aborted ? null : { error: { code: "unreachable", message: told(error) } }))
      .then((said) => said && mine === round && settle(job.entry, said))
      .finally(() => {
        if (mine !== round) return;
        running -= 1;
        next();
      });
  }
}

function told(error) {
  return error instanceof TypeError ? "The server cannot be reached." : String(error.message);
}

async function answer(item, signal) {
  if (item.file && item.file.size > maxUpload) {
    const allowed = (maxUpload / 1e6).toPrecision(3);
    return { error: { code: "too_large", message: `The file is larger than the ${Number(allowed)} MB allowed.` } };
  }
  models ??= (await (await fetch("/api/models", { signal })).json()).models;
  const request = {
    method: "POST",
    headers: { "Content-Type": item.file ? "application/octet-stream" : "application/json" },
    body: item.file ?? JSON.stringify({ url: item.url }),
    signal,
  };
  for (let attempt = 1; ; attempt += 1) {
    const response = await fetch("/api/predict?maps=true&pictures=true", request);
    const again = [429, 503].includes(response.status) && attempt < PATIENCE;
    if (!again) return response.json();
    await pause(Number(response.headers.get("Retry-After") ?? 1), signal);
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(new Error("Stopped."))), { once: true });
  });
}

function settle(entry, said) {
  entry.told = said;
  entry.node.removeAttribute("aria-busy");
  entry.node.replaceChildren(heading(entry), ...(said.error ? failed(said.error) : shown(entry.number, said, models)));
  speak();
}

function speak() {
  const done = entries.filter((entry) => entry.told);
  const bad = done.filter((entry) => entry.told.error).length;
  const images = entries.length === 1 ? "1 image" : `${entries.length} images`;
  if (!entries.length) status.textContent = "";
  else if (done.length < entries.length) status.textContent = `${images}: ${done.length} answered so far.`;
  else status.textContent = `${images}: ${done.length - bad} answered${bad ? `, ${bad} without an answer` : ""}.`;
}

function heading(entry) {
  const node = document.createElement("h3");
  node.textContent = `${entry.number}. ${entry.name}`;
  return node;
}

function paragraph(text, kind) {
  const node = document.createElement("p");
  node.className = kind;
  node.textContent = text;
  return node;
}

function clear() {
  round.abort();
  round = new AbortController();
  entries = [];
  waiting = [];
  running = 0;
  list.replaceChildren();
  results.hidden = true;
  speak();
  find("files").focus();
}

const fromFiles = (files) => [...files].map((file) => ({ name: file.name, file }));
const drop = find("drop");
find("files").addEventListener("change", (event) => {
  ask(fromFiles(event.target.files));
  event.target.value = "";
});
// Anywhere on the page: a file that misses its place would otherwise replace the page.
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  ask(fromFiles(event.dataTransfer.files));
});
find("link")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const url = find("url").value.trim();
  if (!url) return;
  ask([{ name: url, url }]);
  find("url").value = "";
});
find("clear").addEventListener("click", clear);
find("save-json").addEventListener("click", () => save("json", entries, models));
find("save-csv").addEventListener("click", () => save("csv", entries, models));
