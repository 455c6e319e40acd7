"""The kinds of model that are refused."""

from worker.engine.faults import UserFault


class EmptyFile(UserFault):
    code, title = "model_empty", "The file is empty"


class NotOnnx(UserFault):
    code, title = "model_not_onnx", "The file is not an ONNX model"


class CorruptModel(UserFault):
    code, title = "model_corrupt", "The model is damaged or incomplete"


class OversizedProtobuf(UserFault):
    code, title = "model_over_2gib", "A single .onnx file cannot hold more than 2 GiB"


class ObsoleteOpset(UserFault):
    code, title = "model_opset_too_old", "The model's opset is older than ONNX Runtime supports"


class NoInputs(UserFault):
    code, title = "model_no_inputs", "The model takes no inputs"


class NoOutputs(UserFault):
    code, title = "model_no_outputs", "The model returns nothing"


class NothingComputed(UserFault):
    code, title = "model_nothing_computed", "The model has no operators"


class OverlongName(UserFault):
    code, title = "model_name_too_long", "A name of the model's inputs or outputs is too long"


class TooManyNames(UserFault):
    code, title = "model_too_many_names", "The model has more inputs, outputs and operators than are kept account of"


class ExcessiveNesting(UserFault):
    code, title = "model_nested_too_deep", "The model's subgraphs or functions are nested too deep"


class ExcessiveExpansion(UserFault):
    code, title = "model_expands_too_far", "The model unfolds to far more than its file holds"


class UnknownOperators(UserFault):
    code, title = "model_unknown_operators", "The model uses operators that ONNX Runtime does not have"


class UnloadableModel(UserFault):
    code, title = "model_not_loadable", "ONNX Runtime does not load the model"


class MissingExternalData(UserFault):
    code, title = "external_data_missing", "A file with the model's weights is missing"


class ForeignExternalData(UserFault):
    code, title = "external_data_elsewhere", "The model's weights lie outside the upload"


class ShortExternalData(UserFault):
    code, title = "external_data_too_short", "A file with the model's weights is shorter than the model says"


class NotATar(UserFault):
    code, title = "archive_not_tar", "The file is not a tar archive"


class CorruptArchive(UserFault):
    code, title = "archive_corrupt", "The archive is damaged or incomplete"


class UnsafeMember(UserFault):
    code, title = "archive_unsafe_member", "The archive holds something other than plain files side by side"


class DuplicateMember(UserFault):
    code, title = "archive_duplicate_member", "The archive holds two files of the same name"


class OversizedArchive(UserFault):
    code, title = "archive_too_large", "The archive unpacks to more than is accepted"


class NoModelInArchive(UserFault):
    code, title = "archive_without_model", "The archive holds no .onnx file"


class SeveralModelsInArchive(UserFault):
    code, title = "archive_with_several_models", "The archive holds more than one .onnx file"
