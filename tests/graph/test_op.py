"""Op: names, settings, hooks, `@op`, and how an Op is made again elsewhere."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from asyncline import GraphError, Op, Request, Text, op
from asyncline.graph.op import is_async, recipe, remake, snake_case

from .ops import Copy, Join, Model, Subtract, Threshold


@op(cpu="inline", timeout_ms=50)
def combine(left: float, right: float, weight: float = 0.5) -> float:
    """The mean of two."""
    return left * weight + right * (1 - weight)


@op(cpu="inline")
async def fetch(address: str) -> str:
    return address


# -- names


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("Detect", "detect"),
        ("TextLines", "text_lines"),
        ("OCRPage", "ocr_page"),
        ("PageOCR", "page_ocr"),
        ("Resize2D", "resize2_d"),
        ("A", "a"),
        ("already_snake", "already_snake"),
        ("Top5Words", "top5_words"),
    ],
)
def test_a_class_name_becomes_snake_case(class_name: str, name: str) -> None:
    assert snake_case(class_name) == name


def test_a_name_defaults_to_that_of_the_class() -> None:
    class TextLines(Copy):
        pass

    assert TextLines(Request()).name == "text_lines"
    assert TextLines(Request(), name="lines").name == "lines"


@pytest.mark.parametrize("name", ["", "a b", "a-b", "a.b", "2a", "ä", "a\n", 3])
def test_a_bad_name_is_refused_with_the_cure(name: Any) -> None:
    with pytest.raises(GraphError, match=r"a name has letters, digits and underscores only; give one, name='...'"):
        Copy(Request(), name=name)


def test_a_class_whose_name_is_no_op_name_says_so() -> None:
    with pytest.raises(GraphError, match="op 'détecter': a name has letters"):
        type("Détecter", (Copy,), {})(Request())


def test_an_op_shows_its_inputs() -> None:
    request = Request(text=Text())
    assert repr(Join(Copy(request.text), request.text)) == "<Join 'join' of copy, request.text>"
    assert repr(Copy(Request())) == "<Copy 'copy' of request>"


# -- inputs


def test_an_op_without_input_is_refused_with_the_cure() -> None:
    with pytest.raises(GraphError, match=r"op 'copy' has no input: pass an Op, request\.field or the Request"):
        Copy()


@pytest.mark.parametrize("value", [None, "text", 3, Copy])
def test_an_input_that_is_none_is_refused_by_position(value: Any) -> None:
    with pytest.raises(GraphError, match=r"op 'join': input 2 is .*; expected an Op or request\.field"):
        Join(Request(), value)


def test_inputs_of_two_requests_are_refused() -> None:
    with pytest.raises(GraphError, match="op 'join': its inputs come from different Requests"):
        Join(Request(), Request())


def test_the_whole_request_is_no_input_where_it_has_fields() -> None:
    with pytest.raises(GraphError, match=r"op 'copy' takes the whole Request, which has fields: take request\.field"):
        Copy(Request(text=Text()))


def test_an_undeclared_field_names_the_declared_ones() -> None:
    with pytest.raises(GraphError, match=r"the request has no field 'imgae' \(declared: image, text\)"):
        Copy(Request(image=Text(), text=Text()).imgae)


# -- hooks


def test_two_inputs_for_a_hook_of_one_argument_name_the_op_the_hook_and_the_inputs() -> None:
    request = Request(left=Text(), right=Text())
    with pytest.raises(GraphError, match=r"op 'copy': preprocess\(value.* does not fit: it gets 2 values"):
        Copy(request.left, request.right)
    with pytest.raises(GraphError, match=r"\(request\.left, request\.right\)"):
        Copy(request.left, request.right)


def test_one_input_for_a_hook_of_two_arguments_is_refused() -> None:
    with pytest.raises(GraphError, match=r"op 'join': preprocess.* does not fit: it gets one value \(request\)"):
        Join(Request())


def test_a_postprocess_gets_the_result_and_the_inputs() -> None:
    class Post(Op):
        def postprocess(self, result: Any) -> Any:
            return result

    with pytest.raises(GraphError, match=r"op 'post': postprocess.* does not fit: it gets the result and one value"):
        Post(Request())


def test_a_process_takes_one_batch() -> None:
    class Two(Op):
        def process(self, batch: Any, more: Any) -> Any:
            return batch

    with pytest.raises(GraphError, match=r"op 'two': process.* does not fit: it gets one batch: a list of samples"):
        Two(Request())


def test_a_hook_may_take_any_number_of_values() -> None:
    class Any_(Op):
        def preprocess(self, *values: Any, scale: int = 1) -> Any:
            return values

    request = Request(a=Text(), b=Text(), c=Text())
    assert len(Any_(request.a, request.b, request.c, name="many").inputs) == 3


def test_a_hook_written_in_c_without_signature_is_accepted() -> None:
    class Largest(Op):
        preprocess = staticmethod(max)

    assert Largest(Request()).hook("preprocess") is max


def test_an_op_without_hook_is_refused_with_the_cure() -> None:
    class Nothing(Op):
        def init_op(self) -> None:
            pass

    with pytest.raises(GraphError, match="op 'nothing' has no hook: write preprocess, process or postprocess"):
        Nothing(Request())


def test_a_subclass_may_drop_a_hook() -> None:
    class Plain(Model):
        process = None  # type: ignore[assignment]  # as in Python's own __hash__ = None

        def preprocess(self, value: Any) -> Any:
            return value

    assert Plain(Request()).hook("process") is None


@pytest.mark.parametrize(("key", "value"), [("batch_size", 8), ("max_delay_ms", 5), ("retry", 2)])
def test_a_setting_of_batches_without_process_is_refused_with_the_cure(key: str, value: int) -> None:
    with pytest.raises(GraphError, match=rf"op 'copy': {key} without `process`.*write process\(self, batch\)"):
        Copy(Request(), **{key: value})


def test_a_hook_that_is_a_coroutine_function_is_async() -> None:
    assert is_async(fetch(Request()).hook("preprocess"))
    assert not is_async(Copy(Request()).hook("preprocess"))
    assert not is_async(None)


def test_an_op_may_have_an_example() -> None:
    class Doubled(Copy):
        def example(self) -> int:
            return 3

    example = Doubled(Request()).hook("example")
    assert example is not None and example() == 3
    assert Copy(Request()).hook("example") is None


def test_an_example_takes_no_arguments() -> None:
    class Doubled(Copy):
        def example(self, value: Any) -> Any:
            return value

    with pytest.raises(GraphError, match=r"op 'doubled': example\(value.*\).* does not fit: it gets nothing"):
        Doubled(Request())


def test_an_example_cannot_be_async() -> None:
    class Doubled(Copy):
        async def example(self) -> int:
            return 3

    with pytest.raises(GraphError, match="op 'doubled': example cannot be async: nothing would wait for it"):
        Doubled(Request())


def test_an_example_is_a_method() -> None:
    class Doubled(Copy):
        example = 3

    with pytest.raises(GraphError, match=r"op 'doubled': example is 3; write def example\(self\)"):
        Doubled(Request())


# -- settings


def test_settings_of_the_constructor_go_over_those_of_the_class() -> None:
    class Detect(Model):
        batch_size = 4
        retry = 1

    detect = Detect(Request(), batch_size=8)
    assert detect.code_settings == {"batch_size": 8, "retry": 1}
    assert detect.settings.batch_size == 8
    assert detect.settings.retry == 1


def test_settings_are_inherited_and_a_mixin_may_carry_them() -> None:
    class Gpu:
        device = "cuda"
        retry = 1

    class Detect(Gpu, Model):
        retry = 2

    class Fine(Detect):
        batch_size = 2

    assert Fine(Request()).code_settings == {"device": "cuda", "retry": 2, "batch_size": 2}


def test_an_unknown_setting_suggests_the_nearest() -> None:
    with pytest.raises(GraphError, match="op 'model': no setting 'batchsize'; did you mean 'batch_size'"):
        Model(Request(), batchsize=8)


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("retry", 11), ("cpu", "gpu"), ("concurrency", "many"), ("max_delay_ms", float("inf"))],
)
def test_a_setting_out_of_range_names_op_key_and_value(key: str, value: Any) -> None:
    with pytest.raises(GraphError, match=rf"op 'model': {key}: .*, got {value!r}"):
        Model(Request(), **{key: value})


def test_a_device_that_is_none_says_what_to_write() -> None:
    with pytest.raises(GraphError, match="op 'model': device: 'gpu' is no device: use cpu, cuda or cuda:0,1"):
        Model(Request(), device="gpu")


def test_a_method_named_like_a_setting_is_refused() -> None:
    class Confused(Model):
        def retry(self) -> None: ...

    with pytest.raises(GraphError, match="op 'confused': retry: Input should be a valid integer"):
        Confused(Request())


# -- @op


def test_a_decorated_function_is_an_op_with_only_a_preprocess() -> None:
    made = combine(Copy(request := Request()), request)
    assert made.name == "combine"
    assert made.settings.cpu == "inline"
    assert made.settings.timeout_ms == 50
    assert made.hook("process") is None
    assert made.hook("postprocess") is None
    assert type(made).__doc__ == "The mean of two."


def test_a_decorated_function_gets_the_values_of_its_inputs() -> None:
    request = Request()
    preprocess = combine(request, request).hook("preprocess")
    assert preprocess is not None
    assert preprocess(1.0, 3.0) == 2.0


async def test_a_decorated_coroutine_function_stays_one() -> None:
    preprocess = fetch(Request()).hook("preprocess")
    assert preprocess is not None
    assert await preprocess("here") == "here"


def test_a_decorated_function_is_checked_by_its_own_parameters() -> None:
    with pytest.raises(GraphError, match=r"op 'combine': preprocess\(left.*right.* does not fit: it gets one value"):
        combine(Request())


def test_a_decorated_function_is_found_by_import_in_another_process() -> None:
    assert pickle.loads(pickle.dumps(combine)) is combine


def test_a_lambda_may_be_an_op() -> None:
    assert op(cpu="inline")(lambda text: text.upper())(Request()).name == "lambda"


def test_an_unknown_setting_of_a_decorator_suggests_the_nearest() -> None:
    with pytest.raises(GraphError, match="op 'shout': no setting 'timeout'; did you mean 'timeout_ms'"):

        @op(timeout=5)
        def shout(text: str) -> str:
            return text


def test_a_decorator_does_not_replace_a_hook() -> None:
    with pytest.raises(GraphError, match="op 'shout': no setting 'process'"):

        @op(process=print)
        def shout(text: str) -> str:
            return text


# -- made again in a worker


def test_an_op_is_made_again_from_its_class_and_arguments() -> None:
    made = Threshold(Request(), least=0.5, labels=("a", "b"), name="sure", cpu="thread")
    args, kwargs = pickle.loads(pickle.dumps(recipe(made)))
    again = remake(Threshold, args, kwargs)
    assert isinstance(again, Threshold)
    assert again is not made
    assert (again.least, again.labels, again.name) == (0.5, ("a", "b"), "sure")
    assert again.settings == made.settings
    assert len(again.inputs) == 1


def test_an_op_made_again_keeps_the_number_of_its_inputs() -> None:
    request = Request(a=Text(), b=Text())
    again = remake(Join, *recipe(Join(request.a, Copy(request.b))))
    assert len(again.inputs) == 2
    assert all(value not in (request.a, request.b) for value in again.inputs)


def test_an_op_that_takes_its_inputs_by_keyword_is_made_again() -> None:
    request = Request(a=Text(), b=Text())
    again = remake(Subtract, *recipe(Subtract(minuend=request.a, subtrahend=request.b)))
    assert len(again.inputs) == 2


def test_making_an_op_again_leaves_its_request_alone() -> None:
    request = Request()
    made = Copy(request)
    again = remake(Copy, *recipe(made))
    assert list(request.consumers) == [made]
    assert again.request is not request


def test_a_recipe_holds_no_op() -> None:
    args, kwargs = recipe(Join(Copy(request := Request()), request, name="join"))
    assert not any(isinstance(value, Op | Request) for value in (*args, *kwargs.values()))
    assert kwargs == {"name": "join"}
