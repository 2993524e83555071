// What is shown of one image: its picture with the map over it, the answer in words, the probabilities.

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function failed(error) {
  return [make("p", { class: "problem" }, error.message)];
}

export function shown(number, said, models) {
  const { format, width, height } = said.image;
  const grid = make("div", { class: "models" });
  for (const answer of said.answers) {
    const model = models.find((known) => known.id === answer.model);
    grid.append(answered(number, answer, model));
  }
  const parts = [make("p", { class: "facts soft" }, `${format}, ${width} by ${height} pixels`), grid];
  if (said.answers.some((answer) => answer.map || answer.maps)) parts.splice(1, 0, strength(number, grid));
  return parts;
}

function answered(number, answer, model) {
  const told = make("div", {}, make("p", { class: decides(answer) ? "words" : "words undecided" }, answer.words));
  const table = answer.findings ? findings(answer, model) : classes(answer, model);
  if (answer.refused) {
    told.append(make("details", {}, make("summary", {}, "Probabilities all the same"), table));
  } else {
    told.append(table);
  }
  const parts = make("div", { class: "parts" }, figure(number, answer, model), told);
  return make("div", { class: "model" }, make("h4", {}, model.name), parts);
}

function decides(answer) {
  if (!answer.findings) return Boolean(answer.decision);
  return Object.values(answer.findings).some((finding) => finding.present !== null);
}

function figure(number, answer, model) {
  const picture = make("img", { src: answer.picture, alt: `The image as ${model.name} was given it` });
  const layers = make("div", { class: "layers" }, picture);
  const first = answer.map ?? Object.values(answer.maps ?? {})[0];
  if (!first) {
    const words = answer.refused ? "No heat map: the image is refused." : "No heat map: this model has none.";
    return make("figure", {}, layers, make("figcaption", {}, words));
  }
  const heat = make("img", { class: "heat", alt: "Heat map over it" });
  const peak = make("p", { class: "peak" });
  const show = (map, alt) => {
    heat.src = map.image;
    heat.alt = alt;
    peak.textContent = map.words;
    peak.classList.toggle("faint", map.faint);
  };
  show(first, "Heat map over it");
  layers.append(heat);
  const parts = [layers, scale(first), make("figcaption", {}, peak, meaning()), checks(model.heat_maps)];
  if (answer.maps) parts.unshift(choice(number, answer, show));
  return make("figure", {}, ...parts);
}

function meaning() {
  return make("p", {}, "The map shows what moved the model, not where a disease is.");
}

// The colours from 0 to the end of the scale, which is the same for every image of this model.
function scale(map) {
  const words = `Scale of all maps of this model: 0 to ${map.highest.toPrecision(3)} (${map.unit})`;
  const ends = make("div", { class: "ends" }, make("span", {}, "0"), make("span", {}, map.highest.toPrecision(3)));
  const colours = make("div", { class: "colours", role: "img", "aria-label": words });
  return make("div", { class: "scale" }, colours, ends, make("p", { class: "unit" }, `Scale of all maps of this model, in: ${map.unit}.`));
}

// What the checks of the model's maps found; the reasons open at a click.
function checks({ badge, sentence, reasons, scale: origin }) {
  const rows = reasons.map(({ title, verdict, sentence: found }) => make("li", {}, make("strong", {}, `${title}: ${verdict}.`), ` ${found}`));
  const parts = [make("summary", {}, "Checks of this model’s heat maps: ", make("strong", {}, badge)), make("p", {}, sentence)];
  if (rows.length) parts.push(make("ul", {}, ...rows));
  return make("details", { class: `badge ${badge.replace(" ", "-")}` }, ...parts, make("p", {}, origin));
}

// Of the findings that have a heat map, the most probable ones, the one that is shown; at first the one furthest above
// its threshold.
function choice(number, answer, put) {
  const name = `map-${number}-${answer.model}`;
  const group = make("fieldset", { class: "shown" }, make("legend", {}, "Heat map of"));
  const show = (finding) => put(answer.maps[finding], `Heat map of ${finding} over it`);
  const mapped = Object.keys(answer.maps);
  const [strongest] = byMargin(answer.findings).filter((finding) => mapped.includes(finding));
  for (const finding of mapped) {
    const button = make("input", { type: "radio", name, value: finding });
    button.checked = finding === strongest;
    button.addEventListener("change", () => show(finding));
    group.append(make("label", {}, button, finding));
  }
  show(strongest);
  return group;
}

function byMargin(findings) {
  const margin = (name) => findings[name].probability - findings[name].threshold;
  return Object.keys(findings).sort((one, other) => margin(other) - margin(one));
}

function strength(number, grid) {
  const id = `strength-${number}`;
  const slider = make("input", { id, type: "range", min: "0", max: "100", step: "5", value: "50" });
  const output = make("output", { for: id });
  const apply = () => {
    output.textContent = `${slider.value}%`;
    slider.setAttribute("aria-valuetext", output.textContent);
    for (const heat of grid.querySelectorAll("img.heat")) heat.style.opacity = slider.value / 100;
  };
  slider.addEventListener("input", apply);
  apply();
  return make("div", { class: "strength" }, make("label", { for: id }, "Strength of the heat map"), slider, output);
}

function bar(value, threshold) {
  const fill = make("div", { class: "fill" });
  fill.style.width = `${100 * value}%`;
  const track = make("div", { class: "probability", "aria-hidden": "true" }, fill);
  if (threshold !== undefined) {
    const mark = make("div", { class: "mark" });
    mark.style.left = `${100 * threshold}%`;
    track.append(mark);
  }
  return track;
}

function table(caption, heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  return make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...rows));
}

function classes(answer, model) {
  const rows = model.classes.map((name) => {
    const value = answer.probabilities[name];
    const threshold = model.thresholds[name];
    const cell = make("td", {}, value.toFixed(3));
    if (threshold !== undefined) cell.append(make("span", { class: "soft" }, `, threshold ${threshold.toFixed(3)}`));
    cell.append(bar(value, threshold));
    const row = make("tr", {}, make("th", { scope: "row" }, name), cell);
    if (answer.decision === name) row.className = "decided";
    return row;
  });
  const binary = model.positive !== null;
  const marks = binary ? "The mark is that threshold." : "A mark is the threshold of a class by itself; it decides nothing.";
  return table(`Calibrated probabilities. ${model.rule} ${marks}`, ["Class", "Probability"], rows);
}

function findings(answer, model) {
  const rows = byMargin(answer.findings).map((name) => {
    const { probability, threshold, threshold_chosen: chosen, present, abstained } = answer.findings[name];
    const limit = `threshold ${threshold.toFixed(3)}${chosen ? "" : " (not chosen)"}`;
    const said = present === null ? `${limit}${abstained ? ": abstains" : ""}` : `${present ? "reaches" : "below"} its ${limit}`;
    const cell = make("td", {}, probability.toFixed(3), make("span", { class: "soft" }, `, ${said}`), bar(probability, threshold));
    const row = make("tr", {}, make("th", { scope: "row" }, name), cell);
    if (present) row.className = "decided";
    return row;
  });
  const unchosen = Object.values(answer.findings).some((finding) => !finding.threshold_chosen);
  const why = unchosen ? " One marked “not chosen” could not be chosen on validation." : "";
  const caption =
    "Calibrated probability that each finding is present, furthest above its own threshold first. " +
    `The mark is that threshold.${why} A finding below its threshold is not shown to be absent.`;
  return table(caption, ["Finding", "Probability"], rows);
}
