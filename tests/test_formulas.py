"""The families of formula images, and the batches that are made of them."""

import keras
import numpy as np
import pytest

from keras_bit.formulas import contours, draws, fractals, leaves, networks, scenes
from keras_bit.formulas.images import FAMILIES, FormulaImages

UPRIGHT = np.array([[[1, 0, 0], [0, 1, 0]]], "float32")


def batch(families, index=0, **settings):
    settings = {"classes": 5, "batch_size": 20, "batches": 3, "image_size": 24, **settings}
    return FormulaImages(families, **settings)[index]


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_finite_varied_and_in_range(family):
    images, labels = batch([family])
    assert images.shape == (20, 24, 24, 3) and images.dtype == np.float32
    assert labels.shape == (20,) and labels.dtype == np.int32
    assert 0 <= images.min() and images.max() <= 1 and np.isfinite(images).all()
    assert (images.std(axis=(1, 2, 3)) > 0.005).mean() > 0.8


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_come_again_from_the_same_seed_and_no_other(family):
    images, labels = batch([family], 2)
    again = batch([family], 0, start=2)
    np.testing.assert_array_equal(again[0], images)
    np.testing.assert_array_equal(again[1], labels)
    for other in (batch([family], 1), batch([family], 2, seed=1)):
        assert np.abs(other[0] - images).mean() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_a_class_share_the_parameters_of_the_class(family):
    module = FAMILIES[family]
    rows = module.classes(draws.stream(3), 2)
    one, same, other = (keras.tree.map_structure(lambda a, i=i: a[[i]], rows) for i in (0, 0, 1))

    def image(row):
        return np.asarray(module.render(module.draw(draws.stream(4), row), 24))

    np.testing.assert_array_equal(image(one), image(same))
    assert np.abs(image(one) - image(other)).max() > 0.05


def test_families_have_equal_shares_and_labels_of_their_own():
    _, labels = batch(["textures", "contours"])
    assert (labels[:10] < 5).all() and (labels[10:] >= 5).all() and labels.max() < 10
    assert FormulaImages(["textures", "contours"], 5, 2, 1).num_classes == 10


def test_a_family_looks_the_same_beside_others():
    alone, _ = batch(["textures"], batch_size=10)
    beside, _ = batch(["textures", "networks"], batch_size=20)
    np.testing.assert_allclose(beside[:10], alone, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"families": ["clouds"]}, "`families`.*'contours'.*clouds"),
        ({"families": "scenes"}, "`families`"),
        ({"families": []}, "`families`"),
        ({"families": ["scenes", "scenes"]}, "`families`"),
        ({"batch_size": 3}, "`batch_size` must be a multiple.*batch_size=3, 2 families"),
        ({"classes": 1}, "`classes`.*at least 2"),
        ({"image_size": 0}, "`image_size`"),
        ({"batches": 0}, "`batches`"),
        ({"start": -1}, "`start`"),
        ({"seed": None}, "`seed`"),
    ],
)
def test_wrong_arguments(arguments, message):
    right = {"families": ["scenes", "leaves"], "classes": 2, "batch_size": 4, "batches": 1}
    with pytest.raises(ValueError, match=message):
        FormulaImages(**{**right, **arguments})


def test_a_contour_lies_at_its_radius():
    shape = {
        "order": np.array([[2.0, 3.0, 1.0, 4.0]], "float32"),
        "size": np.array([[0.3, 0.2, 0.0, 0.1]], "float32"),
        "phase": np.array([[0.5, 0.0, 0.0, 1.0]], "float32"),
    }
    angle = np.linspace(-3, 3, 7)[None, None]
    waves = 0.3 * np.cos(2 * angle + 0.5) + 0.2 * np.cos(3 * angle) + 0.1 * np.cos(4 * angle + 1)
    radius = np.exp(waves)
    for share, deep in ((1.0, 0.0), (0.5, 0.5), (2.0, -1.0)):
        x, y = (share * radius * f(angle) for f in (np.cos, np.sin))
        found = contours.depth(shape, x.astype("float32"), y.astype("float32"))
        np.testing.assert_allclose(found, np.full_like(radius, deep), atol=1e-4)


def test_lines_of_a_contour_are_nested_circles_counted_by_hand():
    shape = {name: np.zeros((1, contours.HARMONICS), "float32") for name in ("order", "size")}
    parameters = {
        "shape": {**shape, "phase": shape["size"]},
        "view": UPRIGHT,
        "lines": np.array([2.0], "float32"),
        "width": np.array([0.4], "float32"),
        "colours": np.array([[[0, 0, 0], [1, 1, 1]]], "float32"),
    }
    row = np.asarray(contours.render(parameters, 201))[0, 100, 100:, 0]
    # depth is 1 - radius; lines are 0.2 wide around depths of 0.25 and 0.75
    radius = np.arange(101) * 2 / 201
    expected = (np.abs(radius - 0.25) < 0.1) | (np.abs(radius - 0.75) < 0.1)
    edges = np.isclose(np.abs(np.abs(radius - 0.5) - 0.25), 0.1, atol=0.012)
    np.testing.assert_allclose(row[~edges], expected[~edges], atol=0.01)


def test_the_chaos_game_finds_sierpinskis_triangle():
    corners = np.array([[0, 0], [1, 0], [0, 1]]) / 2
    maps = np.zeros((1, fractals.MAPS, 2, 3), "float32")
    maps[0, :3, :, :2] = np.eye(2) / 2
    maps[0, :3, :, 2] = corners
    shape = (1, fractals.STEPS, fractals.PARTICLES)
    choices = np.random.RandomState(0).randint(0, 3, shape).astype("int32")
    x = np.asarray(fractals.points(maps, choices))[0]
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-4)
    assert abs(x.std(axis=0).max() - 0.5) < 1e-3
    # Brought back to the unit triangle, binary digits of x and y never meet.
    x = (x - x.min(axis=0)) / (np.ptp(x, axis=0))
    digits = np.minimum((x * 8).astype(int), 7)
    assert ((digits[:, 0] & digits[:, 1]) == 0).mean() > 0.9
    assert len({*map(tuple, digits.tolist())}) >= 27


def test_maps_contract_as_the_rule_asks():
    rows = fractals.classes(draws.stream(0), 60)
    number = (rows["weight"] > 0).sum(axis=1)
    assert {*number} == {2, 3, 4}
    np.testing.assert_allclose(rows["weight"].sum(axis=1), 1)
    for maps, count in zip(rows["maps"], number, strict=True):
        values = np.linalg.svd(maps[:count, :, :2], compute_uv=False)
        assert values.max() < 0.98
        assert (5 + count) / 2 <= (values @ [1, 2]).sum() + 1e-9 <= (6 + count) / 2 + 1e-6


def test_points_are_counted_where_they_fall():
    x = np.array([[[-0.9, -0.9], [-0.9, -0.9], [0.9, -0.9], [0.1, 0.9], [1.5, 0.0]]], "float32")
    counts = np.asarray(fractals._counts(x, 2))
    np.testing.assert_array_equal(counts, [[[2, 1], [0, 1]]])


def test_a_part_is_a_superellipse():
    def deep(x, y, **changes):
        part = {"centre": [[0.0, 0.0]], "radius": [[2.0, 1.0]], "angle": [0.0], "roundness": [2.0]}
        part = {name: np.array(value, "float32") for name, value in {**part, **changes}.items()}
        point = np.full((1, 1, 1), x, "float32"), np.full((1, 1, 1), y, "float32")
        return float(np.ravel(scenes.depth(part, *point))[0])

    assert abs(deep(0, 0) - 1) < 1e-4
    assert abs(deep(2, 0)) < 1e-4 and abs(deep(0, -1)) < 1e-4
    assert abs(deep(2**0.5, 0.5**0.5)) < 1e-4  # on the ellipse
    assert deep(1.5, 0.9) < 0 < deep(1.5, 0.9, roundness=[8.0])  # in the corner of a box
    assert abs(deep(0, 2, angle=[np.pi / 2])) < 1e-4
    assert abs(deep(3, 3, centre=[[1.0, 3.0]])) < 1e-4


def test_mirrored_figures_are_mirrored():
    rows = scenes.classes(draws.stream(0), 1)
    rows["mirrored"][:] = 1
    parameters = scenes.draw(draws.stream(1), rows)
    grey = np.zeros((1, 3, 3), "float32")
    parameters |= {"view": UPRIGHT, "light": grey[:, 0], "hiding": []}
    for name in ("pattern", "ground"):
        parameters[name]["colours"] = grey + 0.5 * (name == "pattern")
    image = np.asarray(scenes.render(parameters, 32))
    np.testing.assert_allclose(image, image[:, :, ::-1], atol=1e-5)
    assert image.max() > 0.3 and image.min() == 0


def test_figures_stand_out_from_their_ground():
    parameters = scenes.draw(draws.stream(1), scenes.classes(draws.stream(0), 200))
    difference = parameters["pattern"]["colours"] - parameters["ground"]["colours"]
    assert np.abs(difference[:, 0].mean(axis=1)).min() >= scenes.LEAST_CONTRAST - 1e-6


def test_sizes_of_leaves_fall_with_the_third_power():
    sizes = leaves._sizes(draws.stream(0), np.full(20_000, 0.1))
    assert 0.1 <= sizes.min() and sizes.max() <= leaves.LARGEST
    # With a density of r^-3, a share of (r^-2 - 0.9^-2) / (0.1^-2 - 0.9^-2) is larger than r.
    for r in (0.15, 0.2, 0.4):
        expected = (r**-2 - leaves.LARGEST**-2) / (0.1**-2 - leaves.LARGEST**-2)
        assert abs((sizes > r).mean() - expected) < 0.01


def test_a_network_is_sines_of_sums():
    rows = networks.classes(draws.stream(0), 1)
    parameters = networks.draw(draws.stream(1), rows)
    parameters |= {"view": UPRIGHT}
    edge = (np.arange(4) + 0.5) / 2 - 1
    x, y = np.meshgrid(edge, edge)
    features = np.stack([x, y, np.hypot(x, y), x * y], axis=-1)
    for kernel, bias in zip(parameters["kernels"], parameters["biases"], strict=True):
        features = np.sin(features @ kernel[0] + bias[0])
    base, first, second = parameters["colours"][0]
    amounts = 0.5 + 0.5 * features
    expected = base + amounts[..., :1] * (first - base) + amounts[..., 1:] * (second - base)
    np.testing.assert_allclose(networks.render(parameters, 4)[0], expected, atol=1e-4)
