"""Names of classes, and several sets in one."""

import pytest

from chestxray.data.index import Index
from chestxray.data.label_mapping import Naming, alias_keys, check_parts, check_used, harmonise, key, merge, naming
from chestxray.errors import DataError, InputError
from chestxray.recipe import Recipe

ALIASES = alias_keys({"normal": ["NORMAL", "No finding"], "tuberculosis": ["TB", "TURBERCULOSIS"], "pneumonia": []})


def index(*labels, name="set", **columns):
    records = [
        {"path": f"/{name}/{i}.png", "label": label, **{k: v[i] for k, v in columns.items()}}
        for i, label in enumerate(labels)
    ]
    return Index.from_records(records, name=name, licence=f"licence of {name}", citation="c")


def rules(common=True, **given):
    return naming(Recipe(**given), ALIASES, common=common)


def labels(found):
    return found.rows["label"].tolist()


@pytest.mark.parametrize("spelling", ["NORMAL", "Normal", "no_finding", "No finding", "no-FINDING "])
def test_spellings_are_one(spelling):
    assert rules().name(spelling) == "normal"


def test_names_in_other_alphabets_have_keys_of_their_own():
    assert key("肺炎") != key("正常")
    assert key("_") != key("-")


def test_a_misspelt_class_is_known():
    assert rules().name("TURBERCULOSIS") == "tuberculosis"


def test_without_common_names_labels_stay():
    assert labels(harmonise(index("NORMAL", "odd"), rules(common=False))) == ["NORMAL", "odd"]


def test_map_joins_and_renames_by_found_or_common_name():
    assert rules(map="TB=pneumonia").name("TURBERCULOSIS") is not None
    assert rules(map="tuberculosis=pneumonia").name("TB") == "pneumonia"
    assert rules(map="odd=lung disease").name("Odd") == "lung disease"
    assert rules(map=("odd=no finding",)).name("odd") == "normal"
    # What it is renamed to is not renamed again.
    assert rules(map=("pneumonia=normal", "normal=pneumonia")).name("pneumonia") == "normal"


def test_map_takes_a_label_with_an_equals_sign():
    assert rules(map="a=b=normal").name("a=b") == "normal"


def test_drop_leaves_out_and_counts():
    found = harmonise(index("NORMAL", "TB", "TB"), rules(drop="tuberculosis"))
    assert labels(found) == ["normal"]
    assert found.notes == ("2 images of set were left out because their class was dropped: TB.",)
    with pytest.raises(DataError, match="all its classes were dropped"):
        harmonise(index("TB"), rules(drop="TB"))


def test_classes_order_and_name_by_any_spelling():
    found = harmonise(
        index("TB", "NORMAL"), rules(common=False, classes="tuberculosis, Healthy Not", map="normal=Healthy Not")
    )
    assert found.classes == ("tuberculosis", "Healthy Not")
    assert labels(found) == ["tuberculosis", "Healthy Not"]


@pytest.mark.parametrize("given", [{}, {"classes": "normal,tuberculosis"}])
def test_a_class_that_nobody_mapped_is_an_error_that_lists_what_was_found(given):
    with pytest.raises(DataError, match=r"classes: effusion.*--map 'effusion=CLASS'.*Found: NORMAL \(2\), ef"):
        harmonise(index("NORMAL", "NORMAL", "effusion"), rules(**given))


def test_a_known_class_outside_those_asked_for_is_an_error_too():
    with pytest.raises(DataError, match="unexpected classes: TB"):
        harmonise(index("NORMAL", "TB"), rules(classes="normal"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"map": "a"}, "map must be FROM=TO"),
        ({"map": "=b"}, "map must be FROM=TO"),
        ({"map": "a="}, "map must be FROM=TO"),
        ({"classes": "a,A"}, "classes must differ"),
        ({"classes": "a,b", "drop": "A"}, "cannot be asked for .* and dropped"),
    ],
)
def test_options_that_cannot_be_meant(given, message):
    with pytest.raises(InputError, match=message):
        rules(**given)


def test_a_misspelt_option_is_not_ignored():
    with pytest.raises(InputError, match=r"drop names a class that is not in the data: 'TBC'.*Did you mean TB"):
        check_used(Recipe(drop="TBC"), ["NORMAL", "TB"], ALIASES)
    with pytest.raises(InputError, match="map names a class that is not in the data: 'covid'"):
        check_used(Recipe(map="covid=normal"), ["NORMAL"], ALIASES)
    check_used(Recipe(map="TB=x", drop=("x", "normal")), ["NO FINDING", "tb"], ALIASES)


def test_merged_rows_keep_their_source_and_sources_of_one_name_a_number():
    merged = merge([index("a"), index("a", "b", name="other"), index("b")])
    assert merged.rows["source"].tolist() == ["other", "other", "set", "set-2"]
    assert merged.classes == ("a", "b")
    assert merged.name == "set + other"
    assert merged.licence == "licence of set; licence of other"
    assert merged.citation == "c"


def test_a_column_of_one_set_is_empty_for_the_others():
    merged = merge([index("a", sex=["M"]), index("b", name="other")])
    assert merged.rows["sex"].tolist() == ["", "M"]


def test_a_wanted_class_without_images_is_an_error():
    with pytest.raises(DataError, match=r"No images of class b in set. Found: a"):
        merge([index("a")], ("a", "b"))
    assert merge([index("a", "b")], ("b", "a")).classes == ("b", "a")


def test_a_class_beside_a_part_of_it_is_an_error():
    parts = {"pneumonia": ("viral_pneumonia",)}
    with pytest.raises(DataError, match="--map viral_pneumonia=pneumonia"):
        check_parts(index("pneumonia", "viral_pneumonia"), parts)
    check_parts(index("viral_pneumonia", "bacterial_pneumonia"), parts)


def test_naming_without_anything_keeps_everything():
    assert Naming().name("x y") == "x y"


@pytest.mark.parametrize(
    ("found", "several", "first"),
    [
        (("No Finding", "Effusion", "Effusion|Mass", "Mass|Nodule", "Mass|Nodule"), 3, "Mass|Nodule"),
        (("a", "b", "a;b"), 1, "a;b"),
        (("a", "b", "c", "B, A", "a, c"), 2, "B, A"),
        (("normal", "['nodule', 'effusion']"), 1, "['nodule', 'effusion']"),
    ],
)
def test_labels_that_join_several_findings_are_recognised(found, several, first):
    with pytest.raises(DataError) as caught:
        harmonise(index(*found), rules(common=False))
    told = str(caught.value)
    assert told.startswith(f"{several} of {len(found)} images of set have several findings at once")
    assert "where=COLUMN=VALUE|VALUE" in told
    assert f"--map '{first}=CLASS'" in told
    assert f"--drop '{first}'" in told
    assert "\n" not in told
    # Where common names are wanted it is said too, before a list of all that nobody knows.
    with pytest.raises(DataError, match="several findings at once"):
        harmonise(index(*found), rules())


def test_what_several_findings_are_can_be_said():
    films = index("Effusion", "Mass", "Effusion|Mass", "Mass|Nodule")
    with pytest.raises(DataError, match=r"1 of 4 images of set have several findings.*'Mass\|Nodule'"):
        harmonise(films, rules(common=False, map="Effusion|Mass=Mass"))
    said = rules(common=False, map="Effusion|Mass=Mass", drop="Mass|Nodule")
    assert labels(harmonise(films, said)) == ["Effusion", "Mass", "Mass"]
    asked = rules(common=False, classes="Effusion,Mass,Effusion|Mass,Mass|Nodule")
    assert harmonise(films, asked).classes[2] == "Effusion|Mass"


def test_a_comma_in_the_name_of_a_class_is_no_list():
    found = ["COVID-19", "COVID-19, ARDS", "ARDS", "normal"]
    assert labels(harmonise(index(*found), rules(common=False))) == found
