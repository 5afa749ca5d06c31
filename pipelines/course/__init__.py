"""The pictures of docs/course, drawn from a trained model and its data. See `pipelines.course_figures`."""
