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
    const answers = told.answers.map(({ picture, map, ...rest }) => rest);
    return { name, request_id: told.request_id, image: told.image, answers };
  });
  const note = "Research use only. Not a medical device; not for diagnosis.";
  return JSON.stringify({ research_only: note, images }, null, 2) + "\n";
}

function csv(entries, models) {
  const classes = [...new Set(models.flatMap((model) => model.classes))];
  const chances = classes.map((name) => `probability_${name}`);
  const rows = [["name", "model", "decision", ...chances, "set", "abstained", "refused", "distance", "problem"]];
  for (const { name, told } of entries) {
    if (told.error) {
      rows.push([name, "", "", ...classes.map(() => ""), "", "", "", "", told.error.message]);
      continue;
    }
    for (const answer of told.answers) {
      const model = models.find((known) => known.id === answer.model);
      const values = classes.map((label) => answer.probabilities[label] ?? "");
      const inside = answer.set === null ? "" : answer.set.join("|") || "-";
      const { decision, abstained, refused, distance } = answer;
      rows.push([name, model.name, decision, ...values, inside, abstained, refused, distance, ""]);
    }
  }
  return rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
}

function cell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  // A spreadsheet would take a name that begins so for a formula; apostrophes before such a sign were there.
  if (typeof value === "string" && /^'*[=+\-@\t\r\n]/.test(text) && text !== "-") text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
