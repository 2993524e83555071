"""From the recipe to one index: addresses, copies, options, merging, data to test on."""

import pandas as pd
import pytest

import public_trees
from chestxray.data.audit import audit, settle
from chestxray.data.decoded import decode, readable
from chestxray.data.index import Index
from chestxray.data.sources import load_index, parse
from chestxray.data.splitting import split
from chestxray.errors import DataError, InputError, LeakError, PluginError
from chestxray.plugin import SourceOptions
from chestxray.recipe import Recipe


@pytest.fixture
def two(tmp_path):
    """Two folders with other spellings of the same classes."""
    for n in range(12):
        public_trees.film(tmp_path / "one" / "NORMAL" / f"p{n}.png")
        public_trees.film(tmp_path / "one" / "PNEUMONIA" / f"q{n}.png")
        public_trees.film(tmp_path / "two" / "train" / "No_findings" / f"r{n}.jpg")
        public_trees.film(tmp_path / "two" / "test" / "pneumonia" / f"s{n}.jpg")
        public_trees.film(tmp_path / "two" / "train" / "pneumonia" / f"t{n}.jpg")
        public_trees.film(tmp_path / "two" / "test" / "No_findings" / f"u{n}.jpg")
    return f"folder:{tmp_path / 'one'}", f"folder:{tmp_path / 'two'}"


def test_a_single_set_keeps_its_own_names(two, tmp_path):
    assert load_index(Recipe(data=two[1]), tmp_path).classes == ("No_findings", "pneumonia")
    assert load_index(Recipe(data=two[1], map="No_findings=clear"), tmp_path).classes == ("clear", "pneumonia")
    assert load_index(Recipe(data=two[1], classes="Pneumonia,normal"), tmp_path).classes == ("Pneumonia", "normal")


def test_merged_sets_have_common_names_and_keep_their_sources(two, tmp_path):
    index = load_index(Recipe(data=two), tmp_path)
    assert index.classes == ("normal", "pneumonia")
    assert index.rows["source"].value_counts().to_dict() == {"two": 48, "one": 24}
    assert index.name == "one + two"


def test_a_name_that_all_sets_share_needs_no_alias(tmp_path):
    for name in ("one", "two"):
        public_trees.film(tmp_path / name / "Effusion" / "1.png")
        public_trees.film(tmp_path / name / "normal" / "1.png")
    recipe = Recipe(data=(f"folder:{tmp_path / 'one'}", f"folder:{tmp_path / 'two'}"))
    assert load_index(recipe, tmp_path).classes == ("Effusion", "normal")
    public_trees.film(tmp_path / "two" / "Mass" / "1.png")
    with pytest.raises(DataError, match="two has unexpected classes: Mass"):
        load_index(recipe, tmp_path)


def test_a_set_without_an_official_split_is_drawn_beside_one_with_it(two, tmp_path):
    index = load_index(Recipe(data=two), tmp_path)
    splits = split(index, Recipe())
    by_source = splits.index.rows.groupby("source")["split"].apply(set).to_dict()
    assert by_source == {"one": {"train", "validation", "test"}, "two": {"train", "validation", "test"}}
    of_two = splits.index.rows[splits.index.rows["source"] == "two"]
    assert (of_two["split"] == "test").tolist() == of_two["path"].str.contains("/test/").tolist()
    assert any(note.startswith("one (no official split): Split") for note in splits.notes)


def test_data_to_test_on_is_the_whole_test(two, tmp_path):
    recipe = Recipe(data=two[1], test_data=two[0])
    index = load_index(recipe, tmp_path)
    splits = split(index, recipe)
    rows = splits.index.rows
    assert set(rows.loc[rows["source"] == "one", "split"]) == {"test"}
    assert set(rows.loc[rows["source"] == "two", "split"]) == {"train", "validation", ""}
    assert "24 images of the official test were left out: other data is tested on." in splits.notes
    drawn = split(index, recipe.replace(split="grouped")).index.rows
    assert set(drawn.loc[drawn["source"] == "two", "split"]) == {"train", "validation"}
    # Without an official split, all of it trains and validates.
    other = Recipe(data=two[0], test_data=two[1])
    rows = split(load_index(other, tmp_path), other).index.rows
    assert set(rows.loc[rows["source"] == "one", "split"]) == {"train", "validation"}


def test_data_to_test_on_must_be_disjoint_by_pixels(two, tmp_path):
    public_trees.film(tmp_path / "one" / "NORMAL" / "copy.png", 77)
    public_trees.film(tmp_path / "two" / "train" / "No_findings" / "copy.png", 77)
    recipe = Recipe(data=two[1], test_data=two[0])
    index = load_index(recipe, tmp_path)
    index = readable(index, decode(index, (8, 8), "stretch", tmp_path / "cache"), 0)
    found = split(index, recipe)
    report = audit(found.index, found.notes)
    assert len(report.duplicates_across_splits) == 1
    with pytest.raises(LeakError, match="same pixels"):
        settle(found.index, report, "stop")
    settled, _ = settle(found.index, report, "drop")
    gone = settled.rows[settled.rows["audit"] != ""]
    assert gone["source"].tolist() == ["two"]


@pytest.mark.parametrize("times", ["to train and test on", "twice to train on"])
def test_a_set_that_is_given_twice_leaks(two, times, tmp_path):
    """The same files, of one path each, on both sides of a split."""
    other = {"test_data": two[0]} if times == "to train and test on" else {"split": "random"}
    recipe = Recipe(data=(two[0],) if "test_data" in other else (two[0], two[0]), seed=3, **other)
    index = load_index(recipe, tmp_path)
    index = readable(index, decode(index, (8, 8), "stretch", tmp_path / "cache"), 0)
    found = split(index, recipe)
    splits = found.index.rows.groupby("path")["split"].agg(set)
    straddling = set(splits.index[splits.map(len) > 1])
    assert 0 < len(straddling) <= 24
    assert "split" in other or len(straddling) == 24
    report = audit(found.index, found.notes)
    assert {path for group in report.duplicates_across_splits for path in group} == straddling
    with pytest.raises(LeakError, match=f"{len(straddling)} images have copies"):
        settle(found.index, report, "stop")
    before = found.index.rows
    settled, _ = settle(found.index, report, "ignore")
    assert settled.rows["split"].tolist() == before["split"].tolist()
    if len(straddling) == 24:
        with pytest.raises(LeakError, match=r"Leaving out the images that leak \(24\) leaves no training images"):
            settle(found.index, report, "drop")
        return
    settled, said = settle(found.index, report, "drop")
    assert {path for path, _ in said.dropped} == straddling
    after = settled.rows
    assert (after.loc[before["split"] == "test", "split"] == "test").all(), "nothing is taken out of the test"
    assert (after[after["split"] != ""].groupby("path")["split"].nunique() == 1).all()
    assert not audit(settled).leaks


def test_one_file_under_two_labels_is_told(two, tmp_path):
    recipe = Recipe(data=two[0], test_data=two[0])
    index = load_index(recipe, tmp_path)
    index = readable(index, decode(index, (8, 8), "stretch", tmp_path / "cache"), 0)
    rows = index.rows.copy()
    path = rows["path"].iloc[0]
    rows.loc[rows["external"] & (rows["path"] == path), "label"] = "pneumonia"
    (conflict,) = audit(split(index.replace(rows), recipe).index).conflicting
    assert conflict["labels"] == {path: "normal and pneumonia"}


def test_a_class_of_one_set_alone_is_mapped_or_dropped(two, tmp_path):
    def counts(**choices):
        rows = load_index(Recipe(data=two, classes="normal,pneumonia", **choices), tmp_path).rows
        return {source: part["label"].value_counts().to_dict() for source, part in rows.groupby("source")}

    assert counts(drop=f"{two[0]}:pneumonia") == {"one": {"normal": 12}, "two": {"normal": 24, "pneumonia": 24}}
    renamed = counts(map=(f"{two[1]}:pneumonia=normal", "normal=normal"))
    assert renamed == {"one": {"normal": 12, "pneumonia": 12}, "two": {"normal": 48}}
    with pytest.raises(InputError, match="drop names a class that is not in the data: 'opacity'"):
        counts(drop=f"{two[0]}:opacity")
    with pytest.raises(InputError, match="drop names a class that is not in the data: 'folder:elsewhere:pneumonia'"):
        counts(drop="folder:elsewhere:pneumonia")


def test_a_class_that_only_the_test_data_has_is_an_error(two, tmp_path):
    public_trees.film(tmp_path / "two" / "test" / "TB" / "1.png")
    recipe = Recipe(data=two[0], test_data=two[1])
    with pytest.raises(DataError, match=r"two has classes that are not trained: tuberculosis"):
        load_index(recipe, tmp_path)
    assert len(load_index(recipe.replace(drop="TB"), tmp_path)) == 72


def test_a_class_missing_upstream_is_an_error(two, tmp_path):
    with pytest.raises(DataError, match="No images of class tuberculosis in one"):
        load_index(Recipe(data=two[0], classes="normal,pneumonia,tuberculosis"), tmp_path)


def test_addresses(tmp_path, monkeypatch):
    assert parse("folder:a:b").address == "a:b"
    assert parse("phantom").kind == "phantom"
    assert parse("kermany").kind == "kaggle"
    with pytest.raises(InputError, match=r"Unknown data 'kermani'\. Did you mean kermany"):
        parse("kermani")
    (tmp_path / "xrays").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="folder:xrays"):
        parse("xrays")
    with pytest.raises(PluginError, match=r"Unknown data source 'foldr'. Did you mean folder"):
        load_index(Recipe(data="foldr:x"), tmp_path)
    with pytest.raises(InputError, match="at least one data set"):
        load_index(Recipe(), tmp_path)


def test_copies_on_disk(tmp_path):
    a, b = public_trees.kermany(tmp_path / "a"), public_trees.four_class(tmp_path / "b")
    both = Recipe(data=("kermany", "four-class"), path=(f"four-class={b}", f"kermany={a}"))
    assert len(load_index(both, tmp_path / "cache")) == 24
    with pytest.raises(InputError, match="path must say which set it is a copy of"):
        load_index(both.replace(path=(str(a),)), tmp_path)
    with pytest.raises(InputError, match="No such file or folder: 'nowhere'"):
        load_index(Recipe(data="kermany", path="nowhere"), tmp_path)
    with pytest.raises(InputError, match="none of them"):
        load_index(Recipe(data=f"folder:{a}", path=str(a)), tmp_path)
    copied = load_index(Recipe(data="kaggle:nobody/nothing", path=str(b)), tmp_path)
    assert copied.classes == ("COVID19", "NORMAL", "PNEUMONIA", "TURBERCULOSIS")


def test_options_reach_the_source_that_takes_them(two, tmp_path):
    (tmp_path / "list.csv").write_text("where,what\none/NORMAL/p0.png,normal\none/PNEUMONIA/q0.png,pneumonia\n")
    manifest = f"manifest:{tmp_path / 'list.csv'}"
    given = ("path_column=where", f"{manifest}:label_column=what", "skip=test")
    index = load_index(Recipe(data=(manifest, two[1]), data_option=given), tmp_path)
    assert index.rows["source"].value_counts().to_dict() == {"two": 24, "list": 2}
    with pytest.raises(
        InputError, match=r"Unknown data_option 'skp'\. Did you mean skip\? Allowed for this data: skip"
    ):
        load_index(Recipe(data=two[0], data_option="skp=x"), tmp_path)
    with pytest.raises(InputError, match="data_option must be NAME=VALUE"):
        load_index(Recipe(data=two[0], data_option="skip"), tmp_path)


def test_what_is_said_of_all_data_is_not_meant_for_the_catalogues(two, tmp_path):
    root = public_trees.kermany(tmp_path / "k")
    recipe = Recipe(data=("kermany", two[0]), path=f"kermany={root}", patient_pattern=r"([pq]\d+)")
    rows = load_index(recipe, tmp_path / "cache").rows
    assert set(rows.loc[rows["source"] == "one", "patient"]) >= {"p0", "q11"}
    assert "person1" in set(rows.loc[rows["source"] == "kermany", "patient"])


def test_the_index_keeps_its_notes(two, tmp_path):
    index = load_index(Recipe(data=two[0], drop="NORMAL"), tmp_path)
    index.write(tmp_path / "index.parquet")
    assert type(index).read(tmp_path / "index.parquet").notes == index.notes != ()


def test_every_source_declares_what_it_takes():
    from chestxray import registry

    for name in ("folder", "manifest", "npz", "kaggle", "hf", "tfds"):
        plugin = registry.load_plugin(registry.SOURCES, name)
        assert plugin.options
        assert plugin.address_help
        with pytest.raises(InputError, match=f"{name}:"):
            plugin.load("", SourceOptions(cache=None))


@pytest.mark.real_data
def test_kermany_merged_with_four_class(real_data, tmp_path):
    paths = (f"kermany={real_data / 'kermany'}", f"four-class={real_data / 'four-class'}")
    recipe = Recipe(data=("kermany", "four-class"), path=paths)
    with pytest.raises(DataError, match="both pneumonia and viral_pneumonia"):
        load_index(recipe, tmp_path)
    joined = load_index(recipe.replace(map="viral_pneumonia=pneumonia"), tmp_path)
    assert joined.classes == ("covid19", "normal", "pneumonia", "tuberculosis")
    assert len(joined) == 5856 + 920
    apart = recipe.replace(classes="normal,bacterial_pneumonia,viral_pneumonia,covid19,tuberculosis")
    assert load_index(apart, tmp_path).counts()["test"].to_dict() == {
        "normal": 274, "bacterial_pneumonia": 242, "viral_pneumonia": 188, "covid19": 40, "tuberculosis": 40,
    }  # fmt: skip


@pytest.mark.real_data
def test_covid19_three_class_leaks(real_data, tmp_path):
    index = load_index(Recipe(data=f"folder:{real_data / 'covid19-three-class'}"), tmp_path)
    index = readable(index, decode(index, (32, 32), "stretch", tmp_path), 0)
    found = audit(index)
    assert (len(found.duplicates), len(found.duplicates_across_splits)) == (10, 6)


@pytest.mark.real_data
def test_montgomery(real_data, tmp_path):
    pattern = r"(?P<normal>_0\.)|(?P<tuberculosis>_1\.)"
    index = load_index(Recipe(data=f"folder:{real_data / 'montgomery'}", label_pattern=pattern), tmp_path)
    assert index.rows["label"].value_counts().to_dict() == {"normal": 80, "tuberculosis": 58}
    assert (index.rows["lung_mask"] != "").all()


def test_drawn_is_what_a_source_says_and_no_name(folder, tmp_path):
    films = folder.rename(folder.parent / "phantom")
    data = (f"folder:{films}", "phantom:images=24,size=32,classes=normal+pneumonia")
    index = load_index(Recipe(data=data), tmp_path / "cache")
    of_films = index.rows["path"].str.startswith(str(films))
    assert index.drawn.tolist() == (~of_films).tolist()
    index.write(tmp_path / "index.parquet")
    assert Index.read(tmp_path / "index.parquet").drawn.tolist() == index.drawn.tolist()


def test_a_users_column_of_that_name_says_nothing(tmp_path):
    index = Index.from_records([{"path": "/a.png", "label": "normal", "drawn": "yes"}], name="films")
    assert not index.drawn.any()


def test_several_findings_a_film_are_refused_and_the_ways_out_are_ways(tmp_path):
    cells = ["No Finding", "Effusion", "Effusion|Mass", "Mass", "No Finding"]
    for n in range(len(cells)):
        public_trees.film(tmp_path / f"{n}.png")
    table = "".join(f"{n}.png,{cell}\n" for n, cell in enumerate(cells))
    (tmp_path / "list.csv").write_text("Image Index,Finding Labels\n" + table)
    recipe = Recipe(data=f"manifest:{tmp_path / 'list.csv'}")
    with pytest.raises(DataError, match=r"1 of 5 images of list have several findings at once .*'Effusion\|Mass'"):
        load_index(recipe, tmp_path)
    where = load_index(recipe.replace(data_option=("where=Finding Labels=No Finding|Effusion",)), tmp_path)
    assert where.rows["label"].value_counts().to_dict() == {"No Finding": 2, "Effusion": 1}
    assert len(load_index(recipe.replace(drop=("Effusion|Mass",)), tmp_path)) == 4
    assert load_index(recipe.replace(map=("Effusion|Mass=Mass",)), tmp_path).classes == (
        "Effusion",
        "Mass",
        "No Finding",
    )


@pytest.mark.real_data
def test_nih(real_data, tmp_path):
    table = real_data / "nih-1000" / "Data_Entry_of_these.csv"
    option = f"root={real_data / 'nih-1000' / 'images'}"
    recipe = Recipe(data=f"manifest:{table}", data_option=option, by=("age", "Follow-up #"))
    with pytest.raises(DataError, match=r"213 of 1,000 images of Data_Entry_of_these have several findings at once"):
        load_index(recipe, tmp_path)
    found = load_index(recipe.replace(data_option=(option, "where=Finding Labels=No Finding|Effusion")), tmp_path)
    assert found.rows["label"].value_counts()["No Finding"] == 499
    assert {"sex", "age", "view", "follow-up_#"} <= set(found.rows)


@pytest.mark.parametrize("name", ["two\nlines", "a\tb", "x" * 301, "\x1b[2J"])
def test_a_class_that_cannot_be_named_is_refused_before_the_training(name, folder, tmp_path):
    table = tmp_path / "films.csv"
    films = sorted(folder.rglob("*.png"))
    rows = [{"path": path, "label": name if path.parent.name == "normal" else "sick"} for path in films]
    pd.DataFrame(rows).to_csv(table, index=False)
    with pytest.raises(DataError, match=r"a class that cannot be named. Allowed: 1 to 300 characters"):
        load_index(Recipe(data=(f"manifest:{table}",)), tmp_path)
