"""A search with keras-tuner's Hyperband over the rule and a model of your own.

`photos` holds a folder of images for each class. Started again, it resumes:

    python -m keras_bit.examples.search_own_model photos
"""

import sys

import keras
import keras_tuner

import keras_bit

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "photos"
PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
EPOCHS = 9  # validations of a whole schedule; the first rounds run a ninth and a third of it


class OwnModel(keras_bit.HyperBiT):
    """Data, schedule, checkpoints and promotions are the package's; the model is not."""

    def make_model(self, hp, rule):
        images = keras.Input((None, None, 3))
        x = keras_bit.BiTBackbone.from_preset(PRESET)(images)
        if units := hp.Choice("hidden_units", [0, 256]):
            x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(hp.Choice("dropout_rate", [0.0, 0.2, 0.5]))(x)
        model = keras.Model(images, keras_bit.ZeroInitHead(self.data.num_classes)(x))
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=rule.optimizer(), loss=loss, metrics=["accuracy"])
        return model


data = keras_bit.image_folder(FOLDER)
space = keras_tuner.HyperParameters()
space.Fixed("schedule_factor", 1.0)  # Hyperband compares runs of equal length
space.Float("learning_rate_factor", 0.3, 3.0, sampling="log", default=1.0)  # times the rule's
tuner = keras_tuner.Hyperband(
    OwnModel(data, preset=PRESET, epochs=EPOCHS, cache_dir="cache"),
    objective="val_accuracy",
    max_epochs=EPOCHS,
    factor=3,
    hyperparameters=space,
    directory="hyperband",
    project_name="photos",
    seed=0,
)
tuner.search()
tuner.results_summary(num_trials=3)
best = tuner.get_best_hyperparameters()[0]
print(best.values)
print(tuner.hypermodel.rule_for(best))
model = tuner.get_best_models()[0]
keras.Model(model.inputs, model.outputs).save("photos.keras")  # without the trial's optimizer
