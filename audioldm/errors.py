from translator import InputError as InputError
