import pytest

from keras_bit.weights.saved_model.matching import Variable, find_mappings, natural
from tests.weights.saved_model.modules import (
    PROJ,
    SPELLINGS,
    authors_name,
    forward,
    leaf_name,
    no_name,
    numbers_alone,
    random_arrays,
    released_shape,
)


def find(arrays, name_of, spelling="keras", key_of=None):
    """The candidate mappings of arrays called otherwise, each as a dict to our names.

    Keys are names, in the order of a checkpoint, or numbered as those of a list in an object
    graph, where `key_of` gives what comes before the number.
    """
    variables, ours = [], {}
    for number, (name, array) in enumerate(arrays.items()):
        theirs = name_of(name, number)
        key = theirs
        if key_of is not None:
            key = f"{key_of(name, number)}/.ATTRIBUTES/VARIABLE_VALUE"
        shape = released_shape(name, array, spelling).shape
        variables.append(Variable(key, theirs, 0 if key_of is None else number, shape))
        ours[key] = name
    variables.sort(key=lambda variable: natural(variable.key))
    mappings = find_mappings(variables, lambda group: mean_of(arrays[ours[v.key]] for v in group))
    return [{name: ours[v.key] for name, v in mapping.items()} for mapping in mappings]


def mean_of(arrays):
    means = [array.mean() for array in arrays]
    return sum(means) / len(means)


def in_list(name, number):
    return f"weights/{number}"


def themselves(arrays):
    return {name: name for name in arrays}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_that_tell(spelling):
    arrays = random_arrays(head=True)
    disordered = {name: arrays[name] for name in sorted(arrays, key=lambda name: name[::-1])}
    assert find(disordered, SPELLINGS[spelling], spelling) == [themselves(arrays)]


def test_names_of_the_attributes():
    """The order of the paths does not help."""
    arrays = random_arrays(beta_mean=2.0)

    def path(name, number):
        return f"stage{9 - int(name[5])}/{name}" if name.startswith("block") else name

    backwards = dict(reversed(arrays.items()))
    assert find(backwards, no_name, key_of=path) == [themselves(arrays)]


def test_attributes_that_tell_gamma_from_beta():
    arrays = random_arrays(beta_mean=2.0)
    layers = [name.rpartition("/")[0] for name in arrays]
    unique = list(dict.fromkeys(layers))

    def path(name, number):
        return f"weights/{unique.index(layers[number])}/{name.rpartition('/')[2]}"

    assert find(arrays, no_name, key_of=path) == [themselves(arrays)]


def test_two_lists_of_the_same_variables():
    """Keras exports every variable twice, as `variables` and `_all_variables`."""
    arrays = random_arrays()
    variables = [
        Variable(f"{group}/{number}/.ATTRIBUTES/VARIABLE_VALUE", f"resnet/{name}", number, shape)
        for group in ("copies", "weights")
        for number, (name, shape) in enumerate((n, a.shape) for n, a in arrays.items())
    ]
    [mapping] = find_mappings(variables, lambda group: 0.0)
    assert mapping == dict(zip(arrays, variables[: len(arrays)], strict=True))


@pytest.mark.parametrize(
    "name_of",
    [
        lambda name, number: name.replace("unit02", "unit01"),
        # As Keras exports `BiTBackbone`: projections are called otherwise.
        lambda name, number: name.replace("a/proj/standardized_conv2d", "shortcut"),
    ],
    ids=["not unique", "of a part"],
)
def test_names_that_do_not_tell_all(name_of):
    arrays = random_arrays()
    assert find(arrays, name_of, "authors", in_list) == [themselves(arrays)]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_missing_array_is_left_to_the_strict_merge(spelling):
    arrays = random_arrays()
    del arrays[PROJ]
    assert find(arrays, SPELLINGS[spelling], spelling) == [themselves(arrays)]


def projections_last_in_unit(name):
    unit = name[:13] if name.startswith("block") else ""
    return (*forward(name)[:1], unit, "proj" in name, forward(name))


def projections_last_in_block(name):
    block = name[:6] if name.startswith("block") else ""
    return (*forward(name)[:1], block, "proj" in name, forward(name))


def norms_first(name):
    return ("group_norm" not in name, forward(name))


def last_norm_first(name):
    return (not name.startswith("group_norm"), forward(name))


def gammas_then_betas(name):
    return (name.endswith("beta"), forward(name))


def betas_before_gammas(name):
    return (*forward(name)[:-1], name.endswith("gamma"))


def head_first(name):
    return (not name.startswith("head"), forward(name))


ORDERS = [
    forward,
    projections_last_in_unit,
    projections_last_in_block,
    norms_first,
    last_norm_first,
    gammas_then_betas,
    betas_before_gammas,
    head_first,
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name_of, spelling", [(leaf_name, "authors"), (numbers_alone, "keras")])
def test_structure_without_names(name_of, order, spelling):
    # Means that mislead where the names tell.
    arrays = random_arrays(head=True, beta_mean=2.0 if name_of is leaf_name else 0.0)
    ordered = {name: arrays[name] for name in sorted(arrays, key=order)}
    assert find(ordered, name_of, spelling)[0] == themselves(arrays)


def test_means_decide_where_nothing_else_does():
    gammas, betas = (random_arrays(beta_mean=mean) for mean in (0.0, 2.0))
    exchanged = {
        name: name.replace("gamma", "?").replace("beta", "gamma").replace("?", "beta")
        for name in gammas
    }
    assert find(gammas, no_name, key_of=in_list) == [themselves(gammas), exchanged]
    assert find(betas, no_name, key_of=in_list) == [exchanged, themselves(betas)]


def test_numbers_in_names_are_an_order():
    arrays = random_arrays()

    def name_of(name, number):
        return f"v_{number}" if number else "v"

    alphabetical = sorted(range(len(arrays)), key=lambda number: name_of("", number))
    assert alphabetical[:4] == [0, 1, 10, 11]
    rank = {name: alphabetical.index(number) for number, name in enumerate(arrays)}
    mappings = find(arrays, name_of, key_of=lambda name, number: f"weights/{rank[name]}")
    assert mappings[0] == themselves(arrays)


def test_a_head_as_wide_as_other_kernels():
    arrays = random_arrays()
    kernel = arrays["block4/unit02/a/standardized_conv2d/kernel"]
    arrays["head/kernel"], arrays["head/bias"] = kernel[0, 0], kernel[0, 0, 0]
    assert find(arrays, numbers_alone, "authors")[0] == themselves(arrays)


@pytest.mark.parametrize(
    "missing",
    [
        "block2/unit01/b/standardized_conv2d/kernel",
        "block2/unit01/b/group_norm/beta",
        "head/bias",
    ],
)
def test_variables_that_fit_no_network(missing):
    arrays = random_arrays(head=True)
    del arrays[missing]
    assert find(arrays, numbers_alone) == []
    assert find({"dense/kernel": arrays["group_norm/gamma"]}, authors_name) == []
