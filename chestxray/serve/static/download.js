// The results as a file, made in the browser: the server never learns what the files are called.

export function save(kind, entries, models) {
  const answered = entries.filter((entry) => entry.told);
  const content = kind === "json" ? json(answered) : csv(answered, models ?? []);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: kind === "json" ? "application/json" : "text/csv" }));
  link.download = `chestxray.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function json(entries) {
  const images = entries.map(({ name, told }) => {
    if (told.error) return { name, error: told.error };
    const answers = told.answers.map(({ picture, ...rest }) => withoutPictures(rest));
    return { name, request_id: told.request_id, image: told.image, answers };
  });
  const note = "Research use only. Not a medical device; not for diagnosis.";
  return JSON.stringify({ research_only: note, images }, null, 2) + "\n";
}

// An answer whose heat maps are their figures alone.
function withoutPictures(answer) {
  const figures = ({ image, ...rest }) => rest;
  if (answer.map) return { ...answer, map: figures(answer.map) };
  if (!answer.maps) return answer;
  return { ...answer, maps: Object.fromEntries(Object.entries(answer.maps).map(([name, map]) => [name, figures(map)])) };
}

function csv(entries, models) {
  const named = (task) => [...new Set(models.filter((model) => model.task === task).flatMap((model) => model.classes))];
  const classes = named("classes");
  const findings = named("findings");
  const columns = [
    "name",
    "model",
    ...(classes.length ? ["decision"] : []),
    ...new Set([...classes, ...findings].map((name) => `probability_${name}`)),
    ...findings.map((name) => `predicted_${name}`),
    ...(classes.length ? ["set"] : []),
    "abstained",
    "refused",
    "distance",
    "problem",
  ];
  const rows = [columns];
  const add = (values) => rows.push(columns.map((column) => values[column]));
  for (const { name, told } of entries) {
    if (told.error) add({ name, problem: told.error.message });
    for (const answer of told.answers ?? []) {
      const model = models.find((known) => known.id === answer.model);
      const { refused, distance } = answer;
      add({ name, model: model.name, refused, distance, ...(answer.findings ? ofFindings(answer) : ofClasses(answer)) });
    }
  }
  return rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
}

// A list of names in a cell, as `chestxray predict` writes it.
const listed = (names) => names.join("|") || "-";

function ofClasses({ decision, probabilities, set, abstained }) {
  const values = { decision, abstained, set: set === null ? "" : listed(set) };
  for (const [label, value] of Object.entries(probabilities)) values[`probability_${label}`] = value;
  return values;
}

function ofFindings({ findings }) {
  const values = {};
  for (const [name, { probability, present }] of Object.entries(findings)) {
    values[`probability_${name}`] = probability;
    values[`predicted_${name}`] = present === null ? "" : Number(present);
  }
  const abstaining = Object.values(findings).some(({ abstained }) => abstained !== null);
  const silent = Object.keys(findings).filter((name) => findings[name].abstained);
  return { ...values, abstained: abstaining ? listed(silent) : "" };
}

function cell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  // A spreadsheet would take a name that begins so for a formula; apostrophes before such a sign were there.
  if (typeof value === "string" && /^'*[=+\-@\t\r\n]/.test(text) && text !== "-") text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
