"""How large tensors are made: of few shapes, since oneDNN makes and keeps machine code for each shape of a product."""


def one_of_few(number: int) -> int:
    """This number, or one that is at most a sixteenth larger: there are 16 between two powers of two.

    Rows or columns of a tensor, at least 0. Up to 32 it is the number itself.
    """
    step = max(1, (1 << max(0, number - 1).bit_length()) // 32)
    return -(-number // step) * step
