-- So that sagas of one name are listed without reading those of all others. Neither column changes.
CREATE INDEX sagas_by_name ON sagas (name, id);
