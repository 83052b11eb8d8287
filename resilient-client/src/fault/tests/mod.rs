mod machine;
mod values;
