"""What a user of the plugin does: run it, look at its heat maps, compare it."""

import json

import chestxray


def test_it_is_run_explained_and_compared(tmp_path, monkeypatch):
    monkeypatch.setenv("CHESTXRAY_CACHE", str(tmp_path / "cache"))
    runs = {}
    for model in ("squeezenet", "shallow_fc"):
        recipe = chestxray.Recipe(
            model=model, data=("phantom:patients=40,size=48",), image_size=48, weights="none", epochs=1, replicates=100
        )
        runs[model] = chestxray.run(recipe, output=tmp_path / model)
    heatmaps = json.loads((runs["squeezenet"].folder / "heatmaps" / "index.json").read_text())
    assert heatmaps["images"]
    table = chestxray.compare(runs).to_frame()
    assert set(table["model"]) == set(runs)
