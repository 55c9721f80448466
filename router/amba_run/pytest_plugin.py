"""The pytest plugin's place: fixtures import the product lazily, inside themselves."""
