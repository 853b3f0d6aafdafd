"""Looking at latents: what is drawn, what is counted, what the report shows of it, and what is left out."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA
from test_evaluation import CLASSES, STATE, dataset
from test_reports import make_run, words, written

from ssl_gen.evaluation import inference
from ssl_gen.methods import METHODS
from ssl_gen.reports import records, run_folder
from ssl_gen.reports.charts import pictures, scatter
from ssl_gen.reports.records import LatentsRecord, Picture
from ssl_gen.runs import latents, load
from ssl_gen.runs.catalogue import example
from ssl_gen.runs.data import load_data
from ssl_gen.types import Method, UserError

NAMES = ["a", "b", "c"]


def encode(state, images):
    return images.reshape(len(images), -1)[:, :4]


def decode(state, codes, labels):
    """Images whose left half tells the first latent and whose right half the class."""
    left = jnp.broadcast_to(codes[:, :1, None, None], (len(codes), 8, 4, 1))
    right = jnp.broadcast_to(labels[:, None, None, None] * 0.5 - 0.5, (len(codes), 8, 4, 1))
    return jnp.concatenate([left, right], 2)


def classify(state, images):
    """The third class, always."""
    return jnp.log(jnp.broadcast_to(jnp.array([0.1, 0.1, 0.8]), (len(images), CLASSES)))


CONDITIONAL = Method(None, (), classify=classify, encode=encode, decode=decode, conditional=True)


def encoded(method=CONDITIONAL, count=30):
    data = dataset(test=count)
    codes = np.asarray(encode(STATE, data.test_images / np.float32(127.5) - 1))
    return latents.Encoded(inference.compiled(method), STATE, "test", data.test_images, data.test_labels, codes, NAMES)


@pytest.fixture
def grids(monkeypatch):
    """What would have been drawn: file name -> (images, titles)."""
    drawn = {}

    def kept(path, images, titles, text):
        drawn[path.name] = images, titles

    monkeypatch.setattr(pictures, "save_grid", kept)
    return drawn


@pytest.fixture(scope="module")
def fitted(finished, tmp_path_factory):
    """A run that encodes and decodes."""
    return finished.copy("pca", tmp_path_factory.mktemp("latents") / "run")


def test_rows_go_through_the_classes_in_turn():
    labels = np.array([1, 1, 0, 1, 2, 0])
    assert labels[latents.mixed(labels)].tolist() == [0, 1, 2, 0, 1, 1]
    assert latents.mixed(labels).tolist() == [2, 0, 4, 5, 1, 3]


def test_a_path_is_straight_even_and_holds_both_ends():
    path = latents.on_lines(np.array([[0.0, 4.0]]), np.array([[3.0, -2.0]]), 4)
    np.testing.assert_allclose(path, [[[0, 4], [1, 2], [2, 0], [3, -2]]], atol=1e-12)


def test_on_an_arc_between_independent_normal_latents_all_are_normal_and_half_way_on_the_line_none_is():
    random = np.random.default_rng(0)
    starts, ends = random.normal(size=(2, 5_000, 3)) @ np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 2]])
    covariance = np.cov(np.concatenate([starts, ends]).T)
    arc, line = (between(starts, ends, 5) for between in (latents.on_arcs, latents.on_lines))
    for path in (arc, line):
        np.testing.assert_allclose(path[:, 0], starts, atol=1e-12)
        np.testing.assert_allclose(path[:, -1], ends, atol=1e-12)
    for i in range(5):
        np.testing.assert_allclose(np.cov(arc[:, i].T), covariance, atol=0.2)
    np.testing.assert_allclose(arc[:, 2], np.sqrt(2) * line[:, 2], rtol=1e-6)  # 1 / sqrt((1 - s)^2 + s^2) at s = 1/2
    np.testing.assert_allclose(np.cov(line[:, 2].T), covariance / 2, atol=0.1)


@pytest.mark.parametrize(("method", "way"), [(CONDITIONAL, "line"), (CONDITIONAL._replace(normal_latents=True), "arc")])
def test_the_latents_of_a_method_say_by_which_way_a_path_goes(method, way, grids, tmp_path):
    some = encoded(method)._replace(latents=np.full((30, 4), 0.4, np.float32))
    caption = latents.paths(some, tmp_path / "paths.png", {})
    height = {"line": 0.4, "arc": 0.4 * np.sqrt(2) * np.cos(np.pi / 28)}[way]  # at 3/7: 45 degrees less 90 / 14
    assert f"{way} from" in caption
    shown = grids["paths.png"][0][:, 4, 0, 0, 0]
    np.testing.assert_allclose(shown, (height + 1) * 127.5, atol=0.51)


def test_paths_are_arcs_where_samples_are_drawn_from_n_0_i():
    """And straight where nothing holds latents to it."""
    examples = {name: example(module) for name, module in METHODS.items()}
    for name, method in examples.items():
        if method.encode and method.decode:
            assert method.normal_latents == (name not in ("pca", "autoencoder")), name
        else:
            assert not method.normal_latents, name


def test_a_row_of_styles_has_one_latent_and_every_class(grids, tmp_path):
    some = encoded()
    latents.styles(some, tmp_path / "styles.png", {})
    images, titles = grids["styles.png"]
    assert titles == ["image", *NAMES] and images.shape == (latents.STYLES, 1 + CLASSES, 8, 8, 1)
    rows = latents.mixed(some.labels)[: latents.STYLES]
    np.testing.assert_array_equal(images[:, 0], some.images[rows])
    for k in range(CLASSES):
        np.testing.assert_allclose(images[:, 1 + k, 0, 0, 0], (some.latents[rows, 0] + 1) * 127.5, atol=0.51)
        assert np.abs(images[:, 1 + k, :, 4:] - (k * 0.5 + 0.5) * 127.5).max() < 0.51


def test_a_path_leads_from_one_image_to_another_and_the_class_changes_half_way(grids, tmp_path):
    some = encoded()
    right = some.compiled._replace(classify=lambda state, images: jnp.eye(CLASSES)[by_brightness(images)])
    some = some._replace(compiled=right)
    latents.paths(some, tmp_path / "paths.png", {})
    images, titles = grids["paths.png"]
    assert images.shape == (latents.PATHS, latents.BETWEEN + 2, 8, 8, 1) and titles[0] == titles[-1] == "image"
    rows = latents.mixed(some.labels)
    starts, ends = rows[: 2 * latents.PATHS : 2], rows[1 : 2 * latents.PATHS : 2]
    np.testing.assert_array_equal(images[:, 0], some.images[starts])
    np.testing.assert_array_equal(images[:, -1], some.images[ends])
    for column, row in ((1, starts), (-2, ends)):
        np.testing.assert_allclose(images[:, column, 0, 0, 0], (some.latents[row, 0] + 1) * 127.5, atol=0.51)
    told = np.stack([some.labels[starts], some.labels[ends]], 1).repeat(latents.BETWEEN // 2, 1)
    np.testing.assert_allclose(images[:, 1:-1, 0, 7, 0], (told * 0.5 + 0.5) * 127.5, atol=0.51)


def by_brightness(images):
    """The classes of `dataset`'s images, each as bright as its number says."""
    return (images.mean((1, 2, 3)) // 70).astype(int)


@pytest.mark.parametrize("lacking", [{"decode": None}, {"conditional": False}])
def test_there_are_no_styles_where_the_decoder_is_told_no_class(lacking, tmp_path):
    with pytest.raises(UserError, match="told a class"):
        latents.styles(encoded(CONDITIONAL._replace(**lacking)), tmp_path / "styles.png", {})


def test_there_are_no_paths_without_a_decoder(tmp_path):
    with pytest.raises(UserError, match="no decoder"):
        latents.paths(encoded(CONDITIONAL._replace(decode=None)), tmp_path / "paths.png", {})


@pytest.mark.parametrize("codes", [np.arange(30.0)[:, None], np.ones((30, 3))])
def test_there_is_no_map_of_what_has_no_two_dimensions(codes, tmp_path):
    with pytest.raises(UserError, match="two latents that vary"):
        latents.chart(encoded()._replace(latents=codes), tmp_path / "map.png", {})


@pytest.fixture
def maps(monkeypatch):
    """The points and axes of each map that would have been drawn."""
    drawn, draw = [], scatter.scatter

    def kept(points, labels, names, axes):
        drawn.append((points, axes))
        return draw(points, labels, names, axes)

    monkeypatch.setattr(scatter, "scatter", kept)
    return drawn


def test_two_latents_are_drawn_as_they_are(maps, tmp_path):
    some = encoded()
    some = some._replace(latents=some.latents[:, :2])
    assert "the two latents of 30 test images" in latents.chart(some, tmp_path / "map.png", {"mask": "m"})
    np.testing.assert_array_equal(maps[0][0], some.latents)
    assert pictures.read_text(tmp_path / "map.png") == {"mask": "m"}


def test_more_latents_are_drawn_by_the_directions_of_largest_variance(maps, tmp_path):
    codes = np.random.default_rng(0).normal(size=(30, 4)) * np.array([1, 9, 0.1, 4])
    latents.chart(encoded()._replace(latents=codes), tmp_path / "map.png", {})
    centred = codes - codes.mean(0)
    variances = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    points, axes = maps[0]
    np.testing.assert_allclose((points**2).sum(0), variances[:2])
    assert axes[0] == f"first principal component, {variances[0] / variances.sum():.0%} of the variance"


def test_symbols_of_classes_differ_and_neighbours_differ_in_colour_and_shape():
    symbols = [(scatter.symbol(k)[0], scatter.symbol(k)[1].tobytes()) for k in range(scatter.SYMBOLS)]
    assert len(set(symbols)) == 35
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in itertools.pairwise(symbols))


def test_symbols_are_equally_large():
    for k in range(len(scatter.CORNERS)):
        x, y = scatter.symbol(k)[1].T
        area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2  # the shoelace formula
        assert area == pytest.approx(np.pi)


def test_a_point_is_drawn_in_its_colour_at_its_place_on_one_scale_for_both_axes():
    points = np.array([[0.0, 0.0], [10.0, 5.0]])
    picture = scatter.scatter(points, np.array([0, 1]), ["", ""], ("x", "y"))
    unit = scatter.SIDE / (1.08 * 10)  # pixels for 1, with a margin of 4 % of the longer side at each end
    middle = np.array([scatter.LEFT + scatter.SIDE / 2, scatter.TOP + scatter.SIDE / 2])
    for k, away in enumerate(([-5, 2.5], [5, -2.5])):  # from the middle, y downwards
        x, y = middle + unit * np.array(away)
        assert picture.getpixel((int(x), int(y))) == scatter.COLOURS[k]


def test_each_point_has_the_symbol_and_each_median_and_entry_the_name_of_its_class(monkeypatch):
    """Of five classes the third has no image: it stands nowhere."""
    random, marks, texts = np.random.default_rng(0), [], []
    labels = random.permutation(np.repeat([0, 1, 3, 4], [9, 5, 7, 3]))
    points = random.normal(size=(24, 2)) + 5 * labels[:, None]
    monkeypatch.setattr(scatter, "_mark", lambda draw, place, k, radius: marks.append((tuple(place), k)))
    monkeypatch.setattr(
        scatter, "_write", lambda draw, place, text, size, anchor, *_, **__: texts.append((tuple(place), text, anchor))
    )
    scatter.scatter(points, labels, ["ant", "bee", "cat", "dog", "eel"], ("across", "up"))
    corner, side = scatter.frame(points)
    x, y = scatter.LEFT + scatter.SIDE * (points[:, 0] - corner[0]) / side, points[:, 1] - corner[1]
    places = np.column_stack([x, scatter.TOP + scatter.SIDE * (1 - y / side)])
    drawn, legend = sorted(marks[:24]), marks[24:]
    expected = sorted(zip(map(tuple, places), labels.tolist(), strict=True))
    assert [k for _, k in drawn] == [k for _, k in expected]
    np.testing.assert_allclose([place for place, _ in drawn], [place for place, _ in expected])
    medians = [(place, text) for place, text, anchor in texts if anchor == "mm"]
    assert [text for _, text in medians] == ["ant", "bee", "dog", "eel"]
    np.testing.assert_allclose(
        [place for place, _ in medians], [np.median(places[labels == k], 0) for k in (0, 1, 3, 4)]
    )
    entries = {round(place[1], 3): text for place, text, anchor in texts if anchor == "lm"}
    assert [(k, entries[round(place[1], 3)]) for place, k in legend] == [(0, "ant"), (1, "bee"), (3, "dog"), (4, "eel")]


def test_many_classes_and_equal_points_can_be_drawn():
    labels = np.arange(80)
    picture = scatter.scatter(np.zeros((80, 2)), labels, [f"class {k}" for k in labels], ("x", "y"))
    assert picture.size == (scatter.LEFT + scatter.SIDE + scatter.RIGHT, scatter.TOP + scatter.SIDE + scatter.BOTTOM)


def test_separate_classes_are_told_apart_and_labels_of_no_meaning_are_not():
    labels = np.arange(120) % 3
    random = np.random.default_rng(0)
    clusters = 10 * np.eye(3)[labels] + random.normal(size=(120, 3))
    for error in latents.probed(clusters, labels).values():
        assert error == 0
    for error in latents.probed(clusters, random.permutation(labels)).values():
        assert 45 < error < 88  # chance is 66.7, with a deviation of 4.3


def test_errors_need_some_images_of_each_class():
    with pytest.raises(UserError, match="5 images of each"):
        latents.errors(encoded(count=12))
    found = latents.errors(encoded(count=60))
    assert {each for kinds in found.values() for each in kinds} == {"latents", "pixels"} and len(found) == 2


def test_errors_from_latents_and_from_pixels_are_of_what_they_name(monkeypatch):
    """Of the four latents, and of the 64 pixels from 0 to 1."""
    looked = encoded()
    monkeypatch.setattr(
        latents,
        "probed",
        lambda features, labels: {"p": (features.shape, features.min() >= 0, labels is looked.labels)},
    )
    assert latents.errors(looked) == {"p": {"latents": ((30, 4), False, True), "pixels": ((30, 64), True, True)}}


def test_each_latent_stands_beside_its_own_image_and_class(fitted, finished):
    run, data = load.load(fitted), load_data(finished.options("pca", fitted)).dataset
    found = latents.encode(run, 1, 150, 3, None)
    rows = {image.tobytes(): row for row, image in enumerate(data.test_images)}
    assert len(found.images) == 150 and len(rows) == len(data.test_images)
    own = [rows[image.tobytes()] for image in found.images]
    np.testing.assert_array_equal(found.labels, data.test_labels[own])
    flat = found.images.reshape(150, -1) / 127.5 - 1
    expected = (flat - np.asarray(run.states[1].mean).ravel()) @ np.asarray(run.states[1].directions).T
    np.testing.assert_allclose(found.latents, expected, atol=1e-3)


def test_a_look_leaves_pictures_numbers_and_a_report(fitted):
    found = latents.look(fitted, count=200)
    assert [picture.file for picture in found.pictures] == ["latents_paths.png", "latents_map.png"]
    assert found.images == 200 and found.latents == 5
    assert [line.split(":")[0] for line in found.left_out] == ["styles"]
    assert records.load(fitted / "latents.json", LatentsRecord) == found
    text = (fitted / "report.html").read_text()
    assert text.count("<img") == 2
    for picture in found.pictures:
        assert picture.caption in words(text)
        assert pictures.read_text(fitted / picture.file)["mask"] == "digits@30-s0"
    errors = found.errors["10 nearest neighbours"]
    assert f"{errors['latents']:.2f}" in words(text) and f"{errors['pixels']:.2f}" in words(text)
    assert found.left_out[0] in words(text)


def test_the_latents_are_those_of_the_runs_test_images(fitted, maps, finished):
    latents.look(fitted, count=10_000, seed=3)
    data = load_data(finished.options("pca", fitted)).dataset
    flat = data.test_images.reshape(len(data.test_images), -1) / 127.5 - 1
    loaded = load.load(fitted)
    assert loaded.states[0].directions.shape == (5, 64)
    own = (flat - np.asarray(loaded.states[0].mean).ravel()) @ np.asarray(loaded.states[0].directions).T
    expected = PCA(2, svd_solver="full").fit_transform(own)
    np.testing.assert_allclose(np.sort(maps[0][0], 0), np.sort(expected, 0), atol=1e-3)
    assert len(data.train_images) > len(maps[0][0]) == len(flat)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"replica": 2}, "one of 0 to 1"), ({"replica": -1}, "one of 0 to 1"), ({"count": 1}, "--count is at least 2")],
)
def test_a_replica_or_a_count_that_cannot_be_is_refused(fitted, wrong, said):
    with pytest.raises(UserError, match=said):
        latents.look(fitted, **wrong)


def test_a_method_without_encoder_is_refused_with_those_that_have_one(finished):
    with pytest.raises(UserError, match=r"supervised has no encoder.*pca, vae, m1, m2"):
        latents.look(finished("supervised"))


def test_latents_that_are_not_finite_are_refused(fitted, monkeypatch):
    loaded = load.load(fitted)
    broken = [state._replace(mean=state.mean * np.nan) for state in loaded.states]
    monkeypatch.setattr(latents, "load", lambda path: loaded._replace(states=broken))
    with pytest.raises(UserError, match="not all finite"):
        latents.look(fitted)


def looked_at(folder, **changes):
    """A run folder with a latents.json and one picture."""
    drawn = [Picture("latents_map.png", "Map: of <b>all</b>")]
    record = LatentsRecord("test", images=3, latents=2, replica=0, seed=0, pictures=drawn, errors={}, left_out=[])
    make_run(folder)
    records.write(folder / "latents.json", dataclasses.replace(record, **changes))
    pictures.save_grid(folder / "latents_map.png", np.zeros((1, 1, 8, 8, 1), np.uint8))
    return folder


def test_the_report_shows_what_exists_and_takes_no_text_for_code(tmp_path):
    folder = looked_at(tmp_path / "run", left_out=["styles: <script>"])
    text = written(folder)
    assert text.count("<img") == 2 and "Map: of <b>all</b>" in words(text)
    assert "<script>" not in text and "Map: of <b>" not in text
    (folder / "latents_map.png").unlink()
    assert written(folder).count("<img") == 1
    (folder / "latents.json").unlink()
    assert "Latents" not in words(written(folder))


def test_a_broken_record_or_picture_is_named(tmp_path):
    folder = looked_at(tmp_path / "run")
    (folder / "latents_map.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"latents_map\.png is damaged"):
        written(folder)
    (folder / "latents.json").write_text("{}")
    with pytest.raises(UserError, match=r"latents\.json is no LatentsRecord .*no field split"):
        run_folder.read(folder)
