"""A run with a linear probe, from the images to report, card and a second study."""

import html
import re

import keras
import numpy as np
import pandas as pd
import pytest

from chestxray import registry, workflow
from chestxray.errors import InputError
from chestxray.models.assembly import build
from chestxray.recipe import Recipe
from chestxray.report import html_report
from drawn_findings import films


def recipe_of(model, data, tmp_path, **fields):
    """A recipe whose pretrained weights are random ones in a file."""
    weights = tmp_path / "pretrained.weights.h5"
    build(registry.load_plugin(registry.MODELS, model), 2, (16, 16), seed=1).model.save_weights(weights)
    return Recipe(
        model=model, data=(data,), weights=str(weights), probe=True, image_size=16, batch_size=8, replicates=100,
        heatmaps=1, map_checks="none", controls=False, **fields,
    )  # fmt: skip


def page_of(run, name="report.html"):
    """The text of a page, without markup."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", (run.folder / name).read_text())))


def test_a_probe_and_the_epochs_after_it_are_told(folder, tmp_path):
    recipe = recipe_of("deep_cnn", f"folder:{folder}", tmp_path, patient_pattern=r"(p\d+)_", test_share=0.3)
    run = workflow.run(recipe, output=tmp_path / "probe")
    kept = run.history.loc[run.history["val_loss"].idxmin()]
    sentence = f"Of 13 strengths of its L2 penalty, C from 1e-06 to 1, C = {kept['C']:g} was kept"
    page = page_of(run)
    assert sentence in page and f"{kept['C']:g} (kept)" in page and "Phases of the training" not in page
    assert sentence in (run.folder / "MODEL_CARD.md").read_text()
    assert "highest learning rate" not in (run.folder / "MODEL_CARD.md").read_text()
    test = run.predictions.rows.query("split == 'test'")
    model = keras.saving.load_model(run.folder / "model.keras")
    assert [layer.name for layer in model.layers][-3:] == ["logits", "calibration", "probabilities"]
    assert np.isfinite(test.filter(like="p_")).all(axis=None)

    # As if epochs had followed: the same folder with two more rows of its history.
    epochs = run.history.iloc[:2].assign(phase="finetune", C=np.nan, learning_rate=1e-4)
    pd.concat([run.history, epochs]).to_csv(run.folder / "history.csv", index=False)
    html_report.write(run.folder, samples={})
    page, card = page_of(run), (run.folder / "MODEL_CARD.md").read_text()
    assert "The epochs below went on from there." in page and "Training took 2 epochs." in page
    assert sentence in card and "2 epochs run; highest learning rate 0.0001 (finetune)" in card
    assert re.search("weights of epoch [12] of 2,", card)


def test_a_probe_of_findings_is_told(tmp_path):
    options = {"data_option": ("finding_columns=Edema,Mass,Rare",), "monitor": "auroc"}
    options |= {"test_share": 0.3, "validation_share": 0.3}
    run = workflow.run(
        recipe_of("deep_cnn", f"manifest:{films(tmp_path)}", tmp_path, **options), output=tmp_path / "run"
    )
    kept = run.history.loc[run.history["val_auroc"].idxmax()]
    page = page_of(run)
    assert f"C = {kept['C']:g} was kept, which had the highest mean AUROC of validation" in page
    assert "The weights are those of the strength with the highest mean AUROC of validation." in page
    assert "Validation mean AUROC" in page


def test_what_cannot_be_probed_is_said_before_anything_is_written(folder, tmp_path):
    recipe = recipe_of("shallow_cnn", f"folder:{folder}", tmp_path)
    with pytest.raises(InputError, match="the head of shallow_cnn is not"):
        workflow.run(recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="probe needs pretrained weights"):
        workflow.run(recipe.replace(weights="none"), output=tmp_path / "run")
