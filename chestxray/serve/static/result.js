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
    grid.append(answered(answer, model));
  }
  const parts = [make("p", { class: "facts soft" }, `${format}, ${width} by ${height} pixels`), grid];
  if (said.answers.some((answer) => answer.map)) parts.splice(1, 0, strength(number, grid));
  return parts;
}

function answered(answer, model) {
  const told = make("div", {}, make("p", { class: answer.decision ? "words" : "words undecided" }, answer.words));
  if (answer.refused) {
    told.append(make("details", {}, make("summary", {}, "Probabilities all the same"), table(answer, model)));
  } else {
    told.append(table(answer, model));
  }
  const parts = make("div", { class: "parts" }, figure(answer, model), told);
  return make("div", { class: "model" }, make("h4", {}, model.name), parts);
}

function figure(answer, model) {
  const layers = make("div", { class: "layers" });
  layers.append(make("img", { src: answer.picture, alt: `The image as ${model.name} was given it` }));
  let words = "No heat map: this model has none.";
  if (answer.map) {
    layers.append(make("img", { class: "heat", src: answer.map, alt: "Heat map over it" }));
    words = "With the heat map. It shows what moved the model, not where a disease is.";
  } else if (answer.refused) {
    words = "No heat map: the image is refused.";
  }
  return make("figure", {}, layers, make("figcaption", {}, words));
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

function table(answer, model) {
  const binary = model.positive !== null;
  const head = make("tr", {}, ...["Class", "Probability"].map((text) => make("th", { scope: "col" }, text)));
  const body = make("tbody");
  for (const name of model.classes) {
    const value = answer.probabilities[name];
    const threshold = model.thresholds[name];
    const fill = make("div", { class: "fill" });
    fill.style.width = `${100 * value}%`;
    const bar = make("div", { class: "probability", "aria-hidden": "true" }, fill);
    const cell = make("td", {}, value.toFixed(3));
    if (threshold !== undefined) {
      const mark = make("div", { class: "mark" });
      mark.style.left = `${100 * threshold}%`;
      bar.append(mark);
      cell.append(make("span", { class: "soft" }, `, threshold ${threshold.toFixed(3)}`));
    }
    cell.append(bar);
    const row = make("tr", {}, make("th", { scope: "row" }, name), cell);
    if (answer.decision === name) row.className = "decided";
    body.append(row);
  }
  const marks = binary ? "The mark is that threshold." : "A mark is the threshold of a class by itself; it decides nothing.";
  const caption = `Calibrated probabilities. ${model.rule} ${marks}`;
  return make("table", {}, make("caption", {}, caption), make("thead", {}, head), body);
}
