"""The kinds of dataset that are refused."""

from worker.engine.faults import UserFault


class NotADataset(UserFault):
    code, title = "not_a_dataset", "The file is neither .npz nor .safetensors"


class CorruptDataset(UserFault):
    code, title = "dataset_corrupt", "The dataset is damaged or incomplete"


class ExoticArchive(UserFault):
    code, title = "dataset_compression", "The .npz is encrypted or compressed in a way that NumPy does not write"


class ForeignMember(UserFault):
    code, title = "dataset_not_array", "The .npz holds a file that is no array"


class DuplicateArray(UserFault):
    code, title = "dataset_duplicate_array", "Two arrays of the dataset bear the same name"


class ObjectArray(UserFault):
    code, title = "dataset_object_dtype", "An array holds Python objects"


class UnsupportedDtype(UserFault):
    code, title = "dataset_unsupported_dtype", "An array's elements are not numbers that a model can take"


class SizeMismatch(UserFault):
    code, title = "dataset_size_mismatch", "An array's declared shape does not match its data"


class OversizedDataset(UserFault):
    code, title = "dataset_too_large", "The dataset unpacks to more than is accepted"


class OverlongName(UserFault):
    code, title = "dataset_name_too_long", "The name of an array is too long"


class TooManyArrays(UserFault):
    code, title = "dataset_too_many_arrays", "The dataset holds more arrays than are kept account of"


class NoArrays(UserFault):
    code, title = "dataset_empty", "The dataset holds no arrays"


class ScalarArray(UserFault):
    code, title = "dataset_scalar_array", "An array has no axis of samples"


class NoSamples(UserFault):
    code, title = "dataset_no_samples", "The arrays hold no samples"


class UnequalLengths(UserFault):
    code, title = "dataset_unequal_lengths", "The arrays differ in their number of samples"
