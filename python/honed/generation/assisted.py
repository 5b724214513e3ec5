"""stub"""


def assisted_decoding(model, input_ids, fallback, **options):
    return fallback(input_ids, **options)
