//! The tables behind the allow-list. One group, one reason; read `allow.rs` first.
//!
//! sklearn: constructors of its estimators only store their parameters (the library's own
//! contract, checked by `check_no_attributes_set_in_init`), and `BaseEstimator.__setstate__`
//! compares a version and updates `__dict__`. So building one runs nothing; what it later
//! calls are its attributes, and those come from this list too. Listed class by class, never
//! by module pattern. Not listed: `FunctionTransformer`, `PyFuncDistance` and other holders of
//! user functions.

use super::Group;
use super::Kind::{Class, Data, Dtype, Encode, Func, Retype, Storage, Wrapper};

const fn group(
    reason: &'static str,
    kind: super::Kind,
    modules: &'static [&'static str],
    names: &'static [&'static str],
) -> Group {
    Group { reason, kind, modules, names }
}

const BUILTINS: &[&str] = &["builtins", "__builtin__"];
const NP_MULTI: &[&str] = &["numpy.core.multiarray", "numpy._core.multiarray"];

/// The list.
#[rustfmt::skip] // filled lines: a list is read as one
pub(in crate::scan) static GROUPS: &[Group] = &[
    // Python itself
    group(
        "containers; their constructors only copy items",
        Class,
        &["collections"],
        &["OrderedDict", "defaultdict", "deque", "Counter"],
    ),
    group(
        "value types whose constructors take plain values and call nothing given to them",
        Class,
        BUILTINS,
        &["set", "frozenset", "bytearray", "bytes", "complex", "slice", "range", "xrange"],
    ),
    group(
        "types named as a dtype or default factory; never called by the pickle itself",
        Data,
        BUILTINS,
        &[
            "object", "int", "long", "float", "bool", "str", "unicode", "list", "dict", "tuple", "Ellipsis",
            "NotImplemented",
        ],
    ),
    group("turns str into bytes (bytes under protocol 2); the encoding is checked", Encode, &["_codecs"], &["encode"]),
    group(
        "protocol 0 and 1 object creation: base.__new__ on listed classes only",
        Func,
        &["copyreg", "copy_reg"],
        &["_reconstructor"],
    ),
    group(
        "plain dates: constructors check and store numbers",
        Class,
        &["datetime"],
        &["datetime", "date", "time", "timedelta", "timezone"],
    ),
    group("a decimal number", Class, &["decimal"], &["Decimal"]),
    group(
        "a path is a text; nothing is opened",
        Class,
        &["pathlib", "pathlib._local"],
        &["PosixPath", "PurePosixPath", "PureWindowsPath"],
    ),
    group("argument namespaces in training checkpoints: attributes only", Class, &["argparse"], &["Namespace"]),
    // NumPy
    group(
        "array, scalar and buffer rebuilding in C; checks its own state",
        Func,
        NP_MULTI,
        &["_reconstruct", "scalar"],
    ),
    group(
        "an array over bytes already in the pickle",
        Func,
        &["numpy.core.numeric", "numpy._core.numeric"],
        &["_frombuffer"],
    ),
    group("array types", Class, &["numpy"], &["ndarray", "matrix", "recarray"]),
    group("the element type", Dtype, &["numpy"], &["dtype"]),
    group("masked arrays", Func, &["numpy.ma.core"], &["_mareconstruct"]),
    group("masked arrays", Class, &["numpy.ma.core", "numpy.ma"], &["MaskedArray"]),
    group(
        "scalar types, named as data or built from a number",
        Class,
        &["numpy"],
        &[
            "bool_", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
            "float32", "float64", "longdouble", "complex64", "complex128", "str_", "bytes_", "datetime64",
            "timedelta64", "intc", "uintc", "longlong", "ulonglong", "int_", "uint",
        ],
    ),
    group(
        "abstract types and constants, only mentioned",
        Data,
        &["numpy"],
        &["object_", "void", "generic", "number", "integer", "floating", "nan", "inf", "newaxis"],
    ),
    group(
        "element type classes of NumPy 1.25 and later",
        Class,
        &["numpy.dtypes"],
        &[
            "BoolDType", "Int8DType", "Int16DType", "Int32DType", "Int64DType", "UInt8DType", "UInt16DType",
            "UInt32DType", "UInt64DType", "Float16DType", "Float32DType", "Float64DType", "ObjectDType", "StrDType",
            "BytesDType",
        ],
    ),
    group(
        "random state: the name picks one of NumPy's own generators",
        Func,
        &["numpy.random._pickle"],
        &["__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"],
    ),
    group("NumPy's own bit generators", Class, &["numpy.random._mt19937"], &["MT19937"]),
    group("NumPy's own bit generators", Class, &["numpy.random._pcg64"], &["PCG64", "PCG64DXSM"]),
    group("NumPy's own bit generators", Class, &["numpy.random._philox"], &["Philox"]),
    group("seed of a bit generator: numbers", Class, &["numpy.random.bit_generator"], &["SeedSequence"]),
    // SciPy
    group(
        "sparse matrices: arrays and a shape",
        Class,
        &[
            "scipy.sparse._csr", "scipy.sparse._csc", "scipy.sparse._coo", "scipy.sparse._dia", "scipy.sparse.csr",
            "scipy.sparse.csc", "scipy.sparse.coo", "scipy.sparse.dia",
        ],
        &["csr_matrix", "csc_matrix", "coo_matrix", "dia_matrix", "csr_array", "csc_array", "coo_array", "dia_array"],
    ),
    // joblib
    group(
        "a raw array stands in the stream after it; followed byte by byte",
        Wrapper,
        &["joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle"],
        &["NumpyArrayWrapper"],
    ),
    // PyTorch
    group(
        "tensor rebuilding from a storage and numbers (torch's weights_only list)",
        Func,
        &["torch._utils"],
        &[
            "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
            "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_tensor", "_rebuild_nested_tensor",
            "_rebuild_device_tensor_from_numpy", "_rebuild_meta_tensor_no_storage",
        ],
    ),
    group("calls its first argument, which is checked", Retype, &["torch._tensor"], &["_rebuild_from_type_v2"]),
    group("tensor and shape types", Class, &["torch"], &["Size", "device", "Generator"]),
    group(
        "types and constants, only mentioned",
        Data,
        &["torch"],
        &[
            "Tensor", "float32", "float", "float64", "double", "float16", "half", "bfloat16", "uint8", "uint16",
            "uint32", "uint64", "int8", "int16", "short", "int32", "int", "int64", "long", "complex32", "complex64",
            "complex128", "bool", "quint8", "qint8", "qint32", "quint4x2", "float8_e4m3fn", "float8_e5m2",
            "float8_e4m3fnuz", "float8_e5m2fnuz", "strided", "sparse_coo", "sparse_csr", "per_tensor_affine",
            "per_channel_affine", "contiguous_format", "channels_last", "preserve_format",
        ],
    ),
    group(
        "storages, named in persistent ids only",
        Storage(1),
        &["torch", "torch.cuda"],
        &["ByteStorage", "CharStorage", "BoolStorage", "QInt8Storage", "QUInt8Storage", "UntypedStorage"],
    ),
    group("storages, named in persistent ids only", Storage(1), &["torch.storage"], &["UntypedStorage"]),
    group(
        "storages, named in persistent ids only",
        Storage(2),
        &["torch", "torch.cuda"],
        &["HalfStorage", "BFloat16Storage", "ShortStorage"],
    ),
    group(
        "storages, named in persistent ids only",
        Storage(4),
        &["torch", "torch.cuda"],
        &["FloatStorage", "IntStorage", "QInt32Storage"],
    ),
    group(
        "storages, named in persistent ids only",
        Storage(8),
        &["torch", "torch.cuda"],
        &["DoubleStorage", "LongStorage", "ComplexFloatStorage"],
    ),
    group("storages, named in persistent ids only", Storage(16), &["torch", "torch.cuda"], &["ComplexDoubleStorage"]),
    group("maps a name to one of torch's own layouts", Func, &["torch.serialization"], &["_get_layout"]),
    group("a tensor marked as a parameter", Class, &["torch.nn.parameter", "torch.nn"], &["Parameter", "Buffer"]),
    group(
        "TorchScript's typed lists: return their argument",
        Func,
        &["torch.jit._pickle"],
        &[
            "build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "build_tensor_from_id",
            "restore_type_tag",
        ],
    ),
    group(
        "torch's own layers: constructors create parameters, __setstate__ updates __dict__",
        Class,
        &[
            "torch.nn.modules.linear", "torch.nn.modules.conv", "torch.nn.modules.batchnorm",
            "torch.nn.modules.activation", "torch.nn.modules.dropout", "torch.nn.modules.pooling",
            "torch.nn.modules.normalization", "torch.nn.modules.sparse", "torch.nn.modules.rnn",
            "torch.nn.modules.container", "torch.nn.modules.flatten", "torch.nn.modules.padding",
            "torch.nn.modules.loss", "torch.nn.modules.transformer",
        ],
        &[
            "Linear", "Identity", "Bilinear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d",
            "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU",
            "GELU", "SiLU", "Mish", "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "Softplus", "Hardtanh", "Hardswish",
            "Hardsigmoid", "MultiheadAttention", "NonDynamicallyQuantizableLinear", "Dropout", "Dropout1d",
            "Dropout2d", "MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d", "AdaptiveAvgPool1d",
            "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "LayerNorm", "GroupNorm", "RMSNorm", "Embedding",
            "EmbeddingBag", "RNN", "LSTM", "GRU", "LSTMCell", "GRUCell", "Sequential", "ModuleList", "ModuleDict",
            "ParameterList", "Flatten", "Unflatten", "ZeroPad2d", "ReflectionPad1d", "ReflectionPad2d",
            "CrossEntropyLoss", "MSELoss", "BCELoss", "BCEWithLogitsLoss", "NLLLoss", "L1Loss", "Transformer",
            "TransformerEncoder", "TransformerEncoderLayer", "TransformerDecoder", "TransformerDecoderLayer",
        ],
    ),
    group(
        "activations a layer keeps as an attribute; never called by the pickle",
        Data,
        &["torch.nn.functional"],
        &["relu", "gelu", "silu", "tanh", "sigmoid"],
    ),
    // scikit-learn (see the head of this file)
    group(
        "linear models: parameters and arrays",
        Class,
        &[
            "sklearn.linear_model._logistic", "sklearn.linear_model._base", "sklearn.linear_model._ridge",
            "sklearn.linear_model._coordinate_descent", "sklearn.linear_model._stochastic_gradient",
            "sklearn.linear_model._perceptron", "sklearn.linear_model._passive_aggressive",
            "sklearn.linear_model._bayes", "sklearn.linear_model._huber", "sklearn.linear_model._glm.glm",
            "sklearn.linear_model.logistic", "sklearn.linear_model.base", "sklearn.linear_model.ridge",
            "sklearn.linear_model.coordinate_descent", "sklearn.linear_model.stochastic_gradient",
        ],
        &[
            "LogisticRegression", "LogisticRegressionCV", "LinearRegression", "Ridge", "RidgeCV", "RidgeClassifier",
            "RidgeClassifierCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "SGDClassifier", "SGDRegressor",
            "Perceptron", "PassiveAggressiveClassifier", "PassiveAggressiveRegressor", "BayesianRidge",
            "ARDRegression", "HuberRegressor", "PoissonRegressor", "GammaRegressor", "TweedieRegressor",
        ],
    ),
    group(
        "loss functions of SGD: numbers in C",
        Class,
        &["sklearn.linear_model._sgd_fast", "sklearn._loss._loss"],
        &[
            "Hinge", "SquaredHinge", "Log", "ModifiedHuber", "SquaredLoss", "Huber", "EpsilonInsensitive",
            "SquaredEpsilonInsensitive", "CyHalfBinomialLoss", "CyHalfSquaredError", "CyHalfMultinomialLoss",
            "CyAbsoluteError", "CyPinballLoss", "CyHalfPoissonLoss", "CyHalfGammaLoss", "CyHuberLoss",
        ],
    ),
    group(
        "losses and links of gradient boosting: numbers and arrays",
        Class,
        &["sklearn._loss.loss", "sklearn._loss.link"],
        &[
            "HalfBinomialLoss", "HalfSquaredError", "HalfMultinomialLoss", "AbsoluteError", "PinballLoss",
            "HalfPoissonLoss", "HalfGammaLoss", "ExponentialLoss", "LogitLink", "HalfLogitLink", "IdentityLink",
            "LogLink", "MultinomialLogit", "Interval",
        ],
    ),
    group(
        "trees and ensembles: parameters, arrays and lists of the same",
        Class,
        &[
            "sklearn.tree._classes", "sklearn.tree.tree", "sklearn.tree._tree", "sklearn.ensemble._forest",
            "sklearn.ensemble.forest", "sklearn.ensemble._gb", "sklearn.ensemble.gradient_boosting",
            "sklearn.ensemble._bagging", "sklearn.ensemble._weight_boosting", "sklearn.ensemble._voting",
            "sklearn.ensemble._stacking", "sklearn.ensemble._iforest",
            "sklearn.ensemble._hist_gradient_boosting.gradient_boosting",
            "sklearn.ensemble._hist_gradient_boosting.predictor", "sklearn.ensemble._hist_gradient_boosting.binning",
        ],
        &[
            "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor", "Tree",
            "RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor",
            "GradientBoostingClassifier", "GradientBoostingRegressor", "BaggingClassifier", "BaggingRegressor",
            "AdaBoostClassifier", "AdaBoostRegressor", "VotingClassifier", "VotingRegressor", "StackingClassifier",
            "StackingRegressor", "IsolationForest", "HistGradientBoostingClassifier",
            "HistGradientBoostingRegressor", "TreePredictor", "_BinMapper",
        ],
    ),
    group(
        "other estimators: parameters and arrays",
        Class,
        &[
            "sklearn.svm._classes", "sklearn.svm.classes", "sklearn.naive_bayes", "sklearn.calibration",
            "sklearn.neural_network._multilayer_perceptron", "sklearn.neighbors._classification",
            "sklearn.neighbors._regression", "sklearn.neighbors._unsupervised", "sklearn.cluster._kmeans",
            "sklearn.cluster._dbscan", "sklearn.mixture._gaussian_mixture", "sklearn.decomposition._pca",
            "sklearn.decomposition._truncated_svd", "sklearn.decomposition._nmf", "sklearn.decomposition._lda",
            "sklearn.discriminant_analysis", "sklearn.dummy", "sklearn.isotonic", "sklearn.multiclass",
            "sklearn.multioutput", "sklearn.covariance._elliptic_envelope",
        ],
        &[
            "SVC", "NuSVC", "LinearSVC", "SVR", "NuSVR", "LinearSVR", "OneClassSVM", "GaussianNB", "MultinomialNB",
            "BernoulliNB", "ComplementNB", "CategoricalNB", "CalibratedClassifierCV", "_CalibratedClassifier",
            "_SigmoidCalibration", "MLPClassifier", "MLPRegressor", "KNeighborsClassifier", "KNeighborsRegressor",
            "NearestNeighbors", "KMeans", "MiniBatchKMeans", "DBSCAN", "GaussianMixture", "PCA", "TruncatedSVD",
            "NMF", "LatentDirichletAllocation", "LinearDiscriminantAnalysis", "QuadraticDiscriminantAnalysis",
            "DummyClassifier", "DummyRegressor", "IsotonicRegression", "OneVsRestClassifier", "OneVsOneClassifier",
            "MultiOutputClassifier", "MultiOutputRegressor", "ClassifierChain", "EllipticEnvelope",
        ],
    ),
    group(
        "preprocessing and text: parameters, arrays and vocabularies",
        Class,
        &[
            "sklearn.feature_extraction.text", "sklearn.feature_extraction._dict_vectorizer",
            "sklearn.feature_extraction._hash", "sklearn.preprocessing._data", "sklearn.preprocessing.data",
            "sklearn.preprocessing._label", "sklearn.preprocessing.label", "sklearn.preprocessing._encoders",
            "sklearn.preprocessing._discretization", "sklearn.preprocessing._polynomial", "sklearn.impute._base",
            "sklearn.feature_selection._univariate_selection", "sklearn.feature_selection._variance_threshold",
            "sklearn.feature_selection._from_model",
        ],
        &[
            "TfidfVectorizer", "TfidfTransformer", "CountVectorizer", "HashingVectorizer", "DictVectorizer",
            "FeatureHasher", "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "Normalizer",
            "Binarizer", "QuantileTransformer", "PowerTransformer", "LabelEncoder", "LabelBinarizer",
            "MultiLabelBinarizer", "OneHotEncoder", "OrdinalEncoder", "KBinsDiscretizer", "PolynomialFeatures",
            "SimpleImputer", "MissingIndicator", "SelectKBest", "SelectPercentile", "VarianceThreshold",
            "SelectFromModel",
        ],
    ),
    group(
        "composition: lists of listed estimators",
        Class,
        &[
            "sklearn.pipeline", "sklearn.compose._column_transformer", "sklearn.model_selection._search",
            "sklearn.utils._bunch", "sklearn.utils",
        ],
        &["Pipeline", "FeatureUnion", "ColumnTransformer", "GridSearchCV", "RandomizedSearchCV", "Bunch"],
    ),
];

/// Root modules, names (empty: all) and what they do. For words in a finding only: a global that
/// is missing here is refused all the same.
#[rustfmt::skip]
pub(super) static KNOWN_BAD: &[(&[&str], &[&str], &str)] = &[
    (&["os", "posix", "nt"], &[], "runs commands or touches files"),
    (&["subprocess", "commands", "pty", "popen2"], &[], "runs commands"),
    (
        &["builtins", "__builtin__"],
        &[
            "eval", "exec", "execfile", "compile", "apply", "__import__", "getattr", "setattr", "globals", "open",
            "input",
        ],
        "runs code or reaches everything else",
    ),
    (&["sys", "runpy", "code", "codeop", "pdb", "bdb", "timeit", "cProfile", "profile"], &[], "runs code"),
    (&["importlib", "pkgutil", "imp", "pip", "ensurepip", "setuptools"], &[], "imports or installs code"),
    (&["operator", "functools"], &[], "reaches other callables"),
    (&["types", "cloudpickle", "dill", "marshal"], &[], "builds functions from bytes"),
    (&["pickle", "_pickle", "cPickle", "shelve"], &[], "loads another pickle unseen"),
    (
        &["socket", "ssl", "http", "httplib", "urllib", "urllib2", "requests", "aiohttp", "ftplib"],
        &[],
        "uses the network",
    ),
    (&["_io", "io", "shutil", "tempfile", "logging", "glob"], &[], "touches files"),
    (&["pydoc", "webbrowser", "ctypes", "_ctypes", "multiprocessing", "asyncio"], &[], "runs commands or code"),
];
