"""HMDB51 (Kuehne et al., ICCV 2011): 51 classes, 3 splits, flow images without an extension."""

NUM_CLASSES = 51
FLOW_SUFFIXES = ("", ".jpg")
# Of each published list, (split, subset): how many videos, and `list_hash` of them; flow as RGB.
PUBLISHED_LISTS = {
    (1, "train"): (3570, "3c6a2c4e6dbac7791109ad6678df44e343a5ca86c844ee37c8347ade2b6421ca"),
    (1, "val"): (1530, "ee6c836f820b17e962fe934558b8407e26481df90847b524d66b594dfb356cda"),
    (2, "train"): (3570, "e0c88d09e11c161b0c19e367ab38adab7126e9322210bbf1fa8003cf8e0e07a0"),
    (2, "val"): (1530, "ffd300c7c827a67f0759d54165dafd41d32cc90857a3186219fd8c9153063d1e"),
    (3, "train"): (3570, "59661aac7418a5dfcec403073ea0e05acf6391998c225080ff5969a1b6be25e7"),
    (3, "val"): (1530, "3edc2a04371c5c9fc0941635521235eb1d4477934342c6ee8af9dc6613e35344"),
}
