"""placeholder"""


def configure(parser): ...
def main(args):
    return 0
