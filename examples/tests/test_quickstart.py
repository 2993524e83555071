"""The notebook does what it says, from an empty folder and without a download; it is kept without outputs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

HERE = Path(__file__).parents[1]
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
#: What libraries print that is of no use to whoever trains a network.
NOISE = re.compile(r"absl|^[IWE]0000 |TF_ENABLE|oneDNN|Traceback", re.MULTILINE)

# Of the kernel's own libraries, not of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq"),
]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    for cell in code:
        assert (cell.outputs, cell.execution_count, dict(cell.metadata)) == ([], None, {})


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    place = tmp_path_factory.mktemp("quickstart")
    notebook = nbformat.read(HERE / "quickstart.ipynb", as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHESTXRAY_CACHE", str(place / "cache"))
        # As a notebook has it, not as tests have it.
        patch.delenv("MPLBACKEND", raising=False)
        patch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(place)}}).execute()
    return notebook


def outputs(notebook, source):
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and source in cell.source]
    return cell.outputs


def html(found):
    return "".join(one["data"].get("text/html", "") for one in found if "data" in one)


def test_it_ends_in_a_heat_map_and_an_interval(executed):
    assert 'alt="heat map" src="data:image/png;base64,' in html(outputs(executed, "run.explain("))
    table = html(outputs(executed, "run.evaluation.to_frame()"))
    assert re.search(r"<th>auroc</th>\s*<td>[\d.]+</td>\s*<td>[\d.]+</td>\s*<td>[\d.]+</td>", table)
    assert "<th>high</th>" in table
    assert "Report" in html(outputs(executed, "cx.run("))


def test_pictures_are_shown(executed):
    for source in ("films.show(", "plt.subplots("):
        assert [one for one in outputs(executed, source) if "image/png" in one.get("data", {})], source


def test_training_says_how_far_it_is_without_noise(executed):
    streams = [one for one in outputs(executed, "cx.run(") if one["output_type"] == "stream"]
    told = "".join(one["text"] for one in streams)
    assert "epoch" in told.lower()
    assert not NOISE.search(told)
    assert len({one["name"] for one in streams}) == 1, "one stream"
