"""kagglehub itself, against a stand-in of the service or its own cache."""

import contextlib
import dataclasses
import io
import zipfile

import numpy as np
import pytest

import public_trees
from chestxray.data.catalogue import on_disk
from chestxray.data.sources import kaggle as source
from chestxray.data.sources import load_index
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions
from chestxray.recipe import Recipe
from loopback import Kaggle, serving


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """kagglehub's own switches: a service on this machine, an empty cache, no login."""
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "nobody"))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # kagglehub asks http://localhost, whose port 80 is not ours to have: a proxy stands there.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    return tmp_path


@pytest.fixture
def serve(hub, monkeypatch):
    @contextlib.contextmanager
    def inner(service):
        with serving(service) as server, monkeypatch.context() as patch:
            patch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
            yield server

    return inner


def packed(root, padding=0):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(root))
        archive.writestr("padding.bin", np.random.default_rng(0).bytes(padding))
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path):
    return packed(public_trees.kermany(tmp_path / "upstream"))


def test_a_set_of_the_catalogue_is_downloaded_once(hub, serve, archive, tmp_path):
    recipe = Recipe(data="kermany")
    with serve(Kaggle(archive)) as server:
        index = load_index(recipe, tmp_path)
        asked = len(server.asked)
        assert load_index(recipe, tmp_path).rows.equals(index.rows)
        # The version is pinned: what is in the cache is used without asking.
        assert len(server.asked) == asked
    assert load_index(recipe, tmp_path).rows.equals(index.rows)
    assert (len(index), index.classes, index.name) == (12, ("normal", "pneumonia"), "kermany")
    assert (hub / "kagglehub").exists()


def test_an_interrupted_download_is_resumed(hub, serve, tmp_path):
    archive = packed(public_trees.kermany(tmp_path / "upstream"), padding=3_000_000)
    service = Kaggle(archive, cut=2_500_000)
    with serve(service):
        with pytest.raises(DataError, match=r"broke off.*Run the command again to go on") as caught:
            load_index(Recipe(data="kermany"), tmp_path)
        assert "\n" not in str(caught.value)
        assert len(load_index(Recipe(data="kermany"), tmp_path)) == 12
    assert service.ranges
    assert service.ranges[0] >= 1_000_000


def test_an_interrupted_download_starts_anew_where_it_cannot_be_resumed(hub, serve, tmp_path):
    archive = packed(public_trees.kermany(tmp_path / "upstream"), padding=3_000_000)
    service = Kaggle(archive, cut=2_500_000, resumable=False)
    with serve(service):
        with pytest.raises(DataError, match="broke off"):
            load_index(Recipe(data="kermany"), tmp_path)
        assert len(load_index(Recipe(data="kermany"), tmp_path)) == 12
    assert not service.ranges


def test_a_damaged_archive_is_forgotten(hub, serve, archive, tmp_path):
    service = Kaggle(archive[: len(archive) // 2])
    with serve(service):
        for address in ("kaggle:o/n/versions/1", "kaggle:o/other"):
            service.archive = archive[: len(archive) // 2]
            with pytest.raises(DataError, match="arrived damaged"):
                load_index(Recipe(data=address), tmp_path)
            service.archive = archive
            assert len(load_index(Recipe(data=address, data_option="skip=chest_xray"), tmp_path)) == 12


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "login was refused"), (403, "access is forbidden"), (404, "does not exist"), (500, "answered 500")],
)
def test_a_refusal_is_one_line(hub, serve, status, message):
    with serve(Kaggle(b"", status=status)), pytest.raises(DataError, match=message) as caught:
        source.download("o/n")
    assert "\n" not in str(caught.value)
    assert str(status) in str(caught.value)


def test_a_login_that_cannot_be_read_is_no_damage(hub, tmp_path):
    (hub / "nobody").mkdir()
    (hub / "nobody" / "kaggle.json").write_text("{")
    with pytest.raises(DataError, match="could not be downloaded: Invalid Kaggle credentials file"):
        source.download("o/n")


def test_without_a_network_the_cache_serves_any_version(hub, serve, archive, tmp_path):
    with pytest.raises(DataError, match=r"no connection to Kaggle.*--path"):
        source.download("o/n")
    with serve(Kaggle(archive, version=7)):
        found = source.download("o/n")
    assert found.parts[-2:] == ("versions", "7")
    assert source.download("o/n") == found
    with pytest.raises(DataError, match="no connection"):
        source.download("o/n/versions/8")


def test_wrapping_folders_are_looked_through_and_subfolders_can_be_named(hub, serve, archive, tmp_path):
    with serve(Kaggle(archive)):
        whole = load_index(Recipe(data="kaggle:o/n/versions/1", data_option="skip=chest_xray"), tmp_path)
    assert len(whole) == 12
    train = load_index(Recipe(data="kaggle:o/n/versions/1", data_option="subfolder=chest_xray/train"), tmp_path)
    assert (len(train), train.name) == (7, "n")
    for name in ("nowhere", "../../../.."):
        with pytest.raises(InputError, match=r"in the set. It holds: chest_xray"):
            load_index(Recipe(data="kaggle:o/n/versions/1", data_option=f"subfolder={name}"), tmp_path)


def test_a_manifest_within_a_set(hub, serve, tmp_path):
    archive = packed(public_trees.covid_chestxray(tmp_path / "upstream"))
    options = ("manifest=metadata.csv", "root=images", "where=modality=X-ray")
    with serve(Kaggle(archive)):
        index = load_index(Recipe(data="kaggle:o/n/versions/1", data_option=options), tmp_path)
        assert len(load_index(Recipe(data="covid-chestxray"), tmp_path)) == 6
    assert len(index) == 7


def test_members_of_an_archive_stay_in_its_folder(hub, serve, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../../../escaped.png", b"x")
        archive.write(public_trees.film(tmp_path / "1.png"), "a/1.png")
        archive.write(public_trees.film(tmp_path / "2.png"), "b/2.png")
    with serve(Kaggle(buffer.getvalue())):
        source.download("o/n/versions/1")
    outside = [p for p in tmp_path.rglob("escaped.png") if "kagglehub" not in p.parts]
    assert not outside


def test_a_cache_laid_out_by_kagglehub_is_found(hub, serve, tmp_path):
    from chestxray.data.catalogue import catalogue

    entry = catalogue().entries["kermany"]
    assert on_disk(entry, tmp_path) is None
    versions = hub / "kagglehub" / "datasets" / "paultimothymooney" / "chest-xray-pneumonia"
    public_trees.kermany(versions / "versions" / "2")
    assert on_disk(entry, tmp_path) is None, "a download that was not finished"
    (versions / "2.complete").touch()
    assert on_disk(entry, tmp_path) == versions / "versions" / "2"
    from kagglehub.cache import Cache
    from kagglehub.handle import parse_dataset_handle

    # What is read here without kagglehub is what kagglehub itself writes and finds.
    handle = parse_dataset_handle("o/n/versions/3")
    (hub / "kagglehub" / "datasets" / "o" / "n" / "versions" / "3").mkdir(parents=True)
    Cache().mark_as_complete(handle)
    for address in ("kaggle:o/n/versions/3", "kaggle:o/n"):
        found = on_disk(dataclasses.replace(entry, address=address), tmp_path)
        assert str(found) == Cache().load_from_cache(handle)
    assert len(load_index(Recipe(data="kermany"), tmp_path)) == 12


@pytest.mark.parametrize("address", ["", "owner", "o/n/versions/x", "o/n/versions/0", "o/n/1", "../x", "o/n?x"])
def test_an_address_that_is_none(address):
    with pytest.raises(InputError, match="needs OWNER/NAME"):
        source.load(address, SourceOptions(cache=None))
